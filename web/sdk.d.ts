// Types of the script that tollgate serves as <path_prefix>/sdk.js. Keep a copy beside
// your sources; docs/browser.md says how TypeScript finds it.

/** A user as the provider describes them. A field is null if the provider did not send it. */
export interface User {
	readonly id: number | string;
	readonly username: string | null;
	readonly email: string | null;
	readonly quota: number | null;
	readonly used_quota: number | null;
	readonly balance_formatted: string | null;
	readonly created_time: number | string | null;
	readonly status: number | string | null;
	readonly balance: Balance;
	/** What can be spent now: the balance without what running requests hold; null if it is not known. */
	readonly available?: string | null;
	/** How much the user may spend in this application, and how much of it is left. */
	readonly budgets?: readonly Budget[];
	/** Whether the balance is below the amount at which this site warns. */
	readonly low: boolean;
	/** In Unix seconds. */
	readonly session: { readonly issued_at: number; readonly expires_at: number };
}

export interface Budget {
	readonly budget: string;
	readonly per: "hour" | "day" | "month";
	readonly spent: string;
	readonly available: string;
	/** In Unix seconds. */
	readonly resets_at: number;
}

export interface Balance {
	/** As the provider wrote it; null if it is not known. */
	readonly value: string | null;
	readonly state: "fresh" | "stale" | "unknown";
	/** The age of the value in seconds. */
	readonly age: number;
}

/**
 * The code of an error. If a sign-in failed, it may also be a code of the gateway or the
 * provider (`access_denied`, `server_error`, …).
 */
export type ErrorCode =
	| "popup_closed"
	| "popup_blocked"
	| "not_signed_in"
	| "user_changed"
	| "refused"
	| "no_topup"
	| "unavailable"
	| (string & {});

export class TollgateError extends Error {
	constructor(code: ErrorCode);
	readonly code: ErrorCode;
}

export interface TollgateEvents {
	/** A user signed in, or a different user did. */
	login: CustomEvent<{ user: User }>;
	/** The user signed out, in this tab or another one. */
	logout: CustomEvent<{ user: null }>;
	/** The session has ended without a sign-out. */
	expired: CustomEvent<{ user: null }>;
	/** The balance has changed, or a call of `fetch` could not be paid: by the balance, or within a budget. */
	balance: CustomEvent<{
		user: User | null;
		insufficient?: { balance: string | null; required: string };
		exceeded?: { budget: string; spent: string; resets_at: number };
	}>;
	/** The balance has become low. Sent once, until the balance is no longer low. */
	low: CustomEvent<{ user: User | null }>;
}

export interface Tollgate extends EventTarget {
	/**
	 * Signs in, in a window of its own. Call it in a click. Without a click browsers block the
	 * window, and the whole page goes to the sign-in instead, as with `popup: false`.
	 * @param options.returnTo the path to come back to. Default: this page.
	 */
	login(options?: { popup?: boolean; returnTo?: string }): Promise<User>;

	/** Returns the signed-in user, or null. Each call sends a request to the gateway. */
	user(): Promise<User | null>;

	/** Reads the balance at the provider again, at most once a second. */
	refreshBalance(): Promise<User>;

	/**
	 * Opens the provider's top-up page in a new tab. Call it in a click. When the user
	 * comes back, the balance is read again.
	 */
	topUp(): Promise<void>;

	/** Signs out, in all tabs. */
	logout(): Promise<void>;

	/**
	 * Like the browser's `fetch`. If the gateway asks for a sign-in, one window opens for all
	 * waiting calls. After the sign-in each call is sent again, with its body.
	 */
	fetch(input: RequestInfo | URL, init?: RequestInit): Promise<Response>;

	addEventListener<K extends keyof TollgateEvents>(type: K, listener: (event: TollgateEvents[K]) => void, options?: boolean | AddEventListenerOptions): void;
	addEventListener(type: string, listener: EventListenerOrEventListenerObject | null, options?: boolean | AddEventListenerOptions): void;
	removeEventListener<K extends keyof TollgateEvents>(type: K, listener: (event: TollgateEvents[K]) => void, options?: boolean | EventListenerOptions): void;
	removeEventListener(type: string, listener: EventListenerOrEventListenerObject | null, options?: boolean | EventListenerOptions): void;
}

export const tollgate: Tollgate;

declare global {
	interface Window {
		tollgate: Tollgate;
	}
	interface HTMLElementTagNameMap {
		"tollgate-user": HTMLElement;
	}
}
