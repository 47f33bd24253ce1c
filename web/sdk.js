// tollgate in the page: who is signed in, what they have left, signing in and out.
// docs/browser.md is the manual, sdk.d.ts has the types. Nothing here is secret, and
// nothing secret comes here: the session is a cookie that no script can read.

/**
 * The paths of the gateway's endpoints. The gateway writes its own here.
 * @type {Record<"start" | "userinfo" | "refresh" | "topup" | "logout", string>}
 */
const endpoints = { start: "/oauth/start", userinfo: "/oauth/userinfo", refresh: "/oauth/refresh", topup: "/oauth/topup", logout: "/oauth/logout" };

/** How long a sign-in waits for its end, in milliseconds: as long as at the gateway. */
const loginTimeout = 3_600_000;
/** How long the last message of a closed window may take to arrive. */
const messageTimeout = 500;
/** How long to wait for a window that looks closed, if the user has not come back to this page. */
const returnTimeout = 5_000;
/** The minimum time between two requests that messages from other tabs cause. */
const hintInterval = 1_000;
/** How long a user who went to top up may take to come back. */
const topUpTimeout = 600_000;

/** An error; its `code` is for programs. */
export class TollgateError extends Error {
	/** @param {string} code */
	constructor(code) {
		super(`tollgate: ${code}`);
		this.name = "TollgateError";
		this.code = code;
	}
}

/** @typedef {import("./sdk").User} User */
/** @typedef {{ popup: Window, nonce: string }} LoginWindow */

class Tollgate extends EventTarget {
	/** @type {User | null | undefined} null: nobody is signed in; undefined: not known yet */
	#user;
	/** @type {User["id"] | undefined} the user that the page works with, until they sign out */
	#known;
	#asked = 0; // counts the requests, so that an older response never
	#answered = 0; // replaces a newer one
	#logins = 0;
	#isLow = false; // so that the event low is sent once
	/** @type {Promise<User | null> | undefined} */
	#reading;
	/** @type {Promise<User> | undefined} */
	#refreshing;
	/** @type {Promise<void> | undefined} */
	#leaving;
	/**
	 * The running sign-in, and its windows: the user may have lost the first one.
	 * @type {{ windows: LoginWindow[], user: Promise<User> } | undefined}
	 */
	#login;
	/** @type {Promise<User> | undefined} */
	#renewing;
	#hint = { timer: 0, last: 0, cause: "expired" };
	#toppingUp = 0; // until when a user may come back from the top-up page
	#channel = new BroadcastChannel("tollgate");

	constructor() {
		super();
		this.#channel.addEventListener("message", (event) => this.#takeHint(event.data));
		addEventListener("focus", () => this.#comeBack());
		document.addEventListener("visibilitychange", () => this.#comeBack(true));
		addEventListener("pageshow", (event) => {
			const [visit] = /** @type {PerformanceNavigationTiming[]} */ (performance.getEntriesByType("navigation"));
			const isCached = visit?.type === "back_forward" && !visit.transferSize;
			if (event.persisted || isCached) this.#reappear().catch(() => {});
		});
	}

	// The methods up to fetch are for pages. sdk.d.ts describes them.

	/**
	 * @param {{ popup?: boolean, returnTo?: string }} [options]
	 * @returns {Promise<User>}
	 */
	login({ popup = true, returnTo } = {}) {
		const last = this.#login?.windows.at(-1)?.popup;
		if (popup && this.#login && last && !last.closed) {
			last.focus();
			return this.#login.user;
		}
		const start = startURL(returnTo);
		const user = popup && this.#openLogin(start);
		if (user) return user;
		location.assign(start);
		return new Promise(() => {}); // the browser leaves this page
	}

	/** @returns {Promise<User | null>} */
	user() {
		this.#reading ??= this.#ask("GET", endpoints.userinfo + "?optional=1").finally(() => (this.#reading = undefined));
		return this.#reading;
	}

	/** @returns {Promise<User>} */
	refreshBalance() {
		this.#refreshing ??= this.#ask("POST", endpoints.refresh, true)
			.then((user) => user ?? fail("not_signed_in"))
			.finally(() => (this.#refreshing = undefined));
		return this.#refreshing;
	}

	/** @returns {Promise<void>} */
	async topUp() {
		if (!endpoints.topup) fail("no_topup");
		const tab = open("about:blank", "_blank"); // now: later, browsers would block it
		if (!tab) fail("popup_blocked");
		try {
			const response = await request("GET", endpoints.topup);
			if (response.status === 401) this.#apply(null, ++this.#asked, { tell: true });
			if (!response.ok) fail(codeOf(response));
			const url = new URL((await response.json()).topup_url);
			if (url.protocol !== "https:" && url.protocol !== "http:") fail("unavailable");
			tab.opener = null;
			tab.location.replace(url.href);
			this.#toppingUp = Date.now() + topUpTimeout;
		} catch (error) {
			tab.close();
			throw asTollgateError(error);
		}
	}

	/** @returns {Promise<void>} */
	logout() {
		this.#leaving ??= request("POST", endpoints.logout)
			.then((response) => {
				if (!response.ok) fail(codeOf(response));
				this.#apply(null, ++this.#asked, { cause: "logout", tell: true });
			})
			.finally(() => (this.#leaving = undefined));
		return this.#leaving;
	}

	/**
	 * @param {RequestInfo | URL} input
	 * @param {RequestInit} [init]
	 * @returns {Promise<Response>}
	 */
	async fetch(input, init) {
		const first = new Request(input, init);
		if (new URL(first.url).origin !== location.origin) return fetch(first);
		const second = first.clone();
		const asker = this.#known;
		const logins = this.#logins;
		const response = await this.#send(first);
		const problem = await problemOf(response);
		if (problem) this.#lack(problem);
		if (!asksForLogin(problem)) return response;

		if (logins === this.#logins) {
			this.#renewing ??= this.#renew().finally(() => (this.#renewing = undefined));
			await this.#renewing;
		}
		// Do not send the call as another user.
		if (asker !== undefined && asker !== this.#known) fail("user_changed");
		return this.#send(second);
	}

	/** @param {Request} call */
	async #send(call) {
		const response = await fetch(call);
		if (saysLow(response) && !this.#isLow) {
			if (this.#user) render((this.#user = { ...this.#user, low: true }));
			this.#warn(true);
			this.#readSoon();
		}
		return response;
	}

	/**
	 * @param {string} method
	 * @param {string} path
	 * @param {boolean} [tell] tell other tabs if something has changed
	 */
	async #ask(method, path, tell = false) {
		const turn = ++this.#asked;
		try {
			const response = await request(method, path);
			/** @type {User | null} */
			let user = null;
			if (response.status !== 204 && response.status !== 401) {
				if (!response.ok) fail(codeOf(response));
				user = await response.json();
				if (!user?.balance) fail("unavailable"); // this response is not the gateway's
				user = { ...user, low: saysLow(response) };
			}
			this.#apply(user, turn, { cause: this.#hint.cause, tell });
		} catch (error) {
			const fault = asTollgateError(error);
			render(this.#user, { fault });
			throw fault;
		}
		return this.#user ?? null;
	}

	/**
	 * Stores what the gateway says, and sends an event if it is news.
	 * @param {User | null} user
	 * @param {number} turn
	 * @param {{ cause?: string, tell?: boolean }} how
	 */
	#apply(user, turn, { cause = "expired", tell = false }) {
		if (turn < this.#answered) return;
		this.#answered = turn;
		const before = this.#user;
		this.#user = user;
		if (user || cause === "logout") this.#known = user?.id;
		this.#hint.cause = "expired";
		const news = newsOf(before, user, cause);
		if (news && tell) this.#channel.postMessage({ type: "tollgate:changed", cause: news });
		render(user);
		if (news) this.#emit(news, { user });
		if (before === undefined || !user) this.#isLow = Boolean(user?.low);
		else this.#warn(user.low);
	}

	/** @param {boolean} isLow */
	#warn(isLow) {
		const isNew = isLow && !this.#isLow;
		this.#isLow = isLow;
		if (isNew) this.#emit("low", { user: this.#user ?? null });
	}

	/**
	 * @param {string} type
	 * @param {object} detail
	 */
	#emit(type, detail) {
		this.dispatchEvent(new CustomEvent(type, { detail }));
	}

	/**
	 * Opens the window. Returns undefined if the browser blocks it.
	 * @param {URL} start
	 */
	#openLogin(start) {
		const nonce = newNonce();
		const url = new URL(start);
		url.searchParams.set("popup", "1");
		url.searchParams.set("nonce", nonce);
		const popup = open(url, "_blank", centred(500, 600));
		if (!popup) return undefined;
		if (!this.#login) {
			/** @type {LoginWindow[]} */
			const windows = [];
			const user = this.#outcome(windows).finally(() => (this.#login = undefined));
			this.#login = { windows, user };
		}
		this.#login.windows.push({ popup, nonce });
		return this.#login.user;
	}

	/**
	 * Waits for the window's message, by postMessage or on the channel. The channel is for
	 * windows that the provider's Cross-Origin-Opener-Policy has cut off. Such a window looks
	 * closed while it is open. So a window that looks closed counts as closed only when the
	 * user is back on this page. A message that arrives later is still accepted.
	 * @param {LoginWindow[]} windows the last one is the one that the user sees
	 * @returns {Promise<User>}
	 */
	#outcome(windows) {
		return new Promise((resolve, reject) => {
			const heard = new AbortController();
			const { signal } = heard;
			/** @param {any} message */
			const hear = (message) => {
				if (message?.type !== "tollgate:login" || !windows.some((one) => one.nonce === message.nonce) || typeof message.ok !== "boolean") return;
				stop();
				if (message.ok) resolve(this.#arrive());
				else reject(new TollgateError(/^[a-z_]{1,40}$/.test(message.error) ? message.error : "server_error"));
			};
			const close = () => {
				clearInterval(watch);
				reject(new TollgateError("popup_closed"));
			};
			let watched = 0; // the number of windows
			let looksClosed = 0; // since when, with this page in front
			let isBack = false;
			const watch = setInterval(() => {
				if (watched !== windows.length) [watched, looksClosed, isBack] = [windows.length, 0, false];
				if (!windows.at(-1)?.popup.closed || !document.hasFocus()) return;
				looksClosed ||= Date.now();
				if (Date.now() - looksClosed >= (isBack ? messageTimeout : returnTimeout)) close();
			}, 100);
			for (const sign of ["focus", "pointerdown", "keydown"]) {
				addEventListener(sign, () => (isBack ||= windows.at(-1)?.popup.closed || sign === "focus"), { signal, capture: true });
			}
			const timeout = setTimeout(() => {
				stop();
				close();
			}, loginTimeout);
			const stop = () => {
				heard.abort();
				clearInterval(watch);
				clearTimeout(timeout);
			};
			addEventListener("message", (event) => {
				if (event.origin === location.origin && windows.some((one) => one.popup === event.source)) hear(event.data);
			}, { signal });
			this.#channel.addEventListener("message", (event) => hear(event.data), { signal });
		});
	}

	/** A message said that a user signed in. Only the gateway knows whether that is true, and who. */
	async #arrive() {
		if (!this.#user) this.#user = null; // so that the event login is sent
		const user = await this.#ask("GET", endpoints.userinfo + "?optional=1", true);
		if (!user) fail("not_signed_in");
		this.#logins++;
		return user;
	}

	/** Opens the window in which the user signs in for the calls that wait. */
	async #renew() {
		this.#apply(null, ++this.#asked, { tell: true });
		return this.#login?.user ?? this.#openLogin(startURL()) ?? fail("popup_blocked");
	}

	/**
	 * Sends the event balance if the gateway says that a call cannot be paid.
	 * @param {any} problem
	 */
	#lack({ error, balance, required, budget, spent, resets_at }) {
		const user = this.#user ?? null;
		if (error === "insufficient_balance") {
			this.#emit("balance", { user, insufficient: { balance, required } });
			render(this.#user, { message: "lacking" });
		} else if (error === "budget_exceeded") {
			this.#emit("balance", { user, exceeded: { budget, spent, resets_at } });
			render(this.#user, { message: "exceeded" });
		} else return;
		this.#readSoon();
	}

	/**
	 * A message from another tab is not trusted. It only causes a request to the gateway.
	 * @param {any} message
	 */
	#takeHint(message) {
		if (message?.type !== "tollgate:changed" || this.#user === undefined) return;
		if (message.cause === "logout") this.#hint.cause = "logout";
		this.#readSoon();
	}

	#readSoon() {
		const hint = this.#hint;
		if (hint.timer) return;
		hint.timer = setTimeout(() => {
			hint.timer = 0;
			hint.last = Date.now();
			this.#ask("GET", endpoints.userinfo + "?optional=1").catch(() => {});
		}, Math.max(0, hint.last + hintInterval - Date.now()));
	}

	/**
	 * After the Back button, a page that the browser has kept (alive or in its cache) looks as
	 * it did when it was left. It is loaded again in two cases: its user is signed out, or
	 * nobody is signed in and the page had not asked yet.
	 */
	async #reappear() {
		const before = this.#user;
		const user = await this.user();
		if (before ? before.id !== user?.id : before === undefined && !user) location.reload();
	}

	/** @param {boolean} [fromOtherTab] where a user may have signed in or out without this script */
	#comeBack(fromOtherTab = false) {
		if (document.visibilityState !== "visible") return;
		if (Date.now() < this.#toppingUp && this.#user) this.refreshBalance().catch(() => {});
		else if (fromOtherTab && this.#user !== undefined) this.#readSoon();
	}
}

/**
 * @param {User | null | undefined} before
 * @param {User | null} user
 * @param {string} cause
 * @returns {string} the name of the event, or ""
 */
function newsOf(before, user, cause) {
	if (before === undefined) return "";
	if (!user) return before ? cause : "";
	if (before?.id !== user.id) return "login";
	return before.balance.value === user.balance.value ? "" : "balance";
}

/**
 * @param {string} method
 * @param {string} path
 */
function request(method, path) {
	return fetch(path, { method, headers: { Accept: "application/json" }, credentials: "same-origin", cache: "no-store" })
		.catch((error) => Promise.reject(asTollgateError(error)));
}

/**
 * @param {string} code
 * @returns {never}
 */
function fail(code) {
	throw new TollgateError(code);
}

/** @param {unknown} error */
function asTollgateError(error) {
	return error instanceof TollgateError ? error : new TollgateError("unavailable");
}

/** @param {Response} response */
function codeOf(response) {
	return { 401: "not_signed_in", 403: "refused" }[response.status] ?? "unavailable";
}

/**
 * A redirect may have led to another origin, whose response is not the gateway's.
 * @param {Response} response
 */
function isOwn(response) {
	return response.url.startsWith(location.origin + "/");
}

/** @param {Response} response */
function saysLow(response) {
	return isOwn(response) && response.headers.get("Tollgate-Balance-Low") === "1";
}

/**
 * The gateway's problem document, if a response of this origin can be one.
 * @param {Response} response
 */
async function problemOf(response) {
	const type = response.headers.get("Content-Type") ?? "";
	if (![401, 402].includes(response.status) || !type.startsWith("application/problem+json")) return undefined;
	if (!isOwn(response)) return undefined;
	return response.clone().json().catch(() => undefined);
}

/** @param {any} problem */
function asksForLogin(problem) {
	if (typeof problem?.login_url !== "string") return false;
	return problem.login_url.split("?")[0] === endpoints.start;
}

/** @param {string} [returnTo] */
function startURL(returnTo = location.pathname + location.search + location.hash) {
	const url = new URL(endpoints.start, location.origin);
	url.searchParams.set("return_to", returnTo);
	return url;
}

function newNonce() {
	return Array.from(crypto.getRandomValues(new Uint8Array(16)), (b) => b.toString(16).padStart(2, "0")).join("");
}

/**
 * The features of a window in the middle of this one.
 * @param {number} width
 * @param {number} height
 */
function centred(width, height) {
	const left = Math.round(screenX + (outerWidth - width) / 2);
	const top = Math.round(screenY + (outerHeight - height) / 2);
	return `popup,width=${width},height=${height},left=${left},top=${top}`;
}

export const tollgate = new Tollgate();
/** @type {any} */ (window).tollgate = tollgate;

/**
 * The element's texts. A page replaces those of buttons by slots.
 * @type {Record<string, Record<string, string>>}
 */
const texts = {
	en: { account: "Account", loading: "Loading…", login: "Sign in", refresh: "Refresh", topup: "Top up", logout: "Sign out", retry: "Try again", balance: "Balance", unknown: "unknown", updated: "Balance updated", lacking: "Your balance is not enough", low: "Your balance is low", exceeded: "Your spending limit is reached", again: "Please sign in again", unfinished: "The sign-in was not finished", refused: "This account cannot be used here", failed: "That did not work" },
	"pt-BR": { account: "Conta", loading: "Carregando…", login: "Entrar", refresh: "Atualizar", topup: "Recarregar", logout: "Sair", retry: "Tentar de novo", balance: "Saldo", unknown: "desconhecido", updated: "Saldo atualizado", lacking: "Seu saldo não é suficiente", low: "Seu saldo está baixo", exceeded: "Você atingiu seu limite de gastos", again: "Entre novamente", unfinished: "O login não foi concluído", refused: "Esta conta não pode ser usada aqui", failed: "Não funcionou" },
	es: { account: "Cuenta", loading: "Cargando…", login: "Iniciar sesión", refresh: "Actualizar", topup: "Recargar", logout: "Cerrar sesión", retry: "Reintentar", balance: "Saldo", unknown: "desconocido", updated: "Saldo actualizado", lacking: "Su saldo no es suficiente", low: "Le queda poco saldo", exceeded: "Ha alcanzado su límite de gasto", again: "Inicie sesión de nuevo", unfinished: "No se completó el inicio de sesión", refused: "Esta cuenta no se puede usar aquí", failed: "No ha funcionado" },
	ja: { account: "アカウント", loading: "読み込み中…", login: "ログイン", refresh: "更新", topup: "チャージ", logout: "ログアウト", retry: "再試行", balance: "残高", unknown: "不明", updated: "残高を更新しました", lacking: "残高が不足しています", low: "残高が少なくなっています", exceeded: "ご利用の上限に達しました", again: "もう一度ログインしてください", unfinished: "ログインが完了しませんでした", refused: "このアカウントはここでは使えません", failed: "うまくいきませんでした" },
	"zh-Hans": { account: "账户", loading: "正在加载…", login: "登录", refresh: "刷新", topup: "充值", logout: "退出登录", retry: "重试", balance: "余额", unknown: "未知", updated: "余额已更新", lacking: "余额不足", low: "余额偏低", exceeded: "您已达到消费限额", again: "请重新登录", unfinished: "登录未完成", refused: "此账户无法在这里使用", failed: "操作未成功" },
	"zh-Hant": { account: "帳戶", loading: "正在載入…", login: "登入", refresh: "重新整理", topup: "儲值", logout: "登出", retry: "重試", balance: "餘額", unknown: "未知", updated: "餘額已更新", lacking: "餘額不足", low: "餘額偏低", exceeded: "您已達到消費限額", again: "請重新登入", unfinished: "登入未完成", refused: "此帳戶無法在這裡使用", failed: "操作未成功" },
};

/**
 * The texts in the language of an element.
 * @param {Element} element
 */
function textsFor(element) {
	/** @type {any} */
	let at = element;
	while (at && !at.closest("[lang]")) at = at.getRootNode().host;
	/** @type {string} */
	const tag = (at?.closest("[lang]").lang || navigator.language || "en").toLowerCase();
	if (tag.startsWith("zh")) return texts[/hant|tw|hk|mo/.test(tag) ? "zh-Hant" : "zh-Hans"];
	if (tag.startsWith("pt")) return texts["pt-BR"];
	if (tag.startsWith("es")) return texts.es;
	return tag.startsWith("ja") ? texts.ja : texts.en;
}

/**
 * The text of an error on the element. All other errors have `failed`.
 * @type {Record<string, string>}
 */
const errorTexts = { not_signed_in: "again", popup_closed: "unfinished", access_denied: "unfinished", refused: "refused" };

/** A name with such a character shows something. */
const visible = /[\p{L}\p{N}\p{P}\p{S}]/u;

const style = `
:host { display: inline-block; font: var(--tollgate-font, inherit); color: var(--tollgate-color, inherit); }
[hidden] { display: none !important; }
[part=box] { display: flex; flex-wrap: wrap; align-items: center; gap: var(--tollgate-gap, .5em .75em); }
[part=name], [part=low] { font-weight: 600; }
[part=name], [part=email] { overflow-wrap: anywhere; }
[part=value] { font-variant-numeric: tabular-nums; }
button {
	font: inherit; color: inherit; background: transparent; cursor: pointer;
	min-height: 2em; padding: .25em .75em;
	border: 1px solid currentcolor; border-radius: var(--tollgate-radius, .4em);
}
button:focus-visible { outline: 3px solid var(--tollgate-accent, currentcolor); outline-offset: 2px; }
[part~=login] {
	font-weight: 600; border-color: transparent;
	background: var(--tollgate-accent, #2456d6); color: var(--tollgate-on-accent, #fff);
}
`;

/** @type {Set<TollgateUser>} */
const elements = new Set();
/** @type {{ user?: User | null, fault?: TollgateError }} what all elements show */
let shown = {};

/**
 * Brings all elements up to date.
 * @param {User | null | undefined} user
 * @param {{ fault?: TollgateError, message?: string }} [more]
 */
function render(user, { fault, message } = {}) {
	shown = { user, fault };
	for (const element of elements) element.update(message);
}

class TollgateUser extends HTMLElement {
	/** @type {Record<string, HTMLElement>} */
	#parts = {};
	#busy = false;

	connectedCallback() {
		if (!this.shadowRoot) this.#build();
		elements.add(this);
		this.update();
		if (shown.user === undefined) tollgate.user().catch(() => {});
	}

	disconnectedCallback() {
		elements.delete(this);
	}

	#build() {
		const root = this.attachShadow({ mode: "open" });
		const sheet = new CSSStyleSheet();
		sheet.replaceSync(style);
		root.adoptedStyleSheets = [sheet];

		const box = make("div", "box", { role: "group" });
		this.#parts.box = box;
		for (const name of ["loading", "name", "email", "balance", "low", "login", "refresh", "topup", "logout", "retry", "message"]) {
			this.#parts[name] = box.appendChild(make("span", name));
		}
		const { loading, balance, low, message } = this.#parts;
		this.#parts.loadingText = loading.appendChild(make("slot", "", { name: "loading" }));
		this.#parts.label = balance.appendChild(make("span", "label"));
		balance.append(" ");
		this.#parts.value = balance.appendChild(make("span", "value"));
		for (const part of [message, low]) part.setAttribute("role", "status");

		this.#button("login", () => tollgate.login());
		this.#button("refresh", () => tollgate.refreshBalance().then(() => "updated"));
		this.#button("topup", () => tollgate.topUp());
		this.#button("logout", () => tollgate.logout());
		this.#button("retry", () => tollgate.user());
		root.append(box);
	}

	/**
	 * @param {string} name
	 * @param {() => Promise<any>} act in the click, so that it may open a window
	 */
	#button(name, act) {
		const button = make("button", `button ${name}`, { type: "button" });
		this.#parts[name + "Text"] = button.appendChild(make("slot", "", { name }));
		button.addEventListener("click", () => this.#do(act));
		this.#parts[name].replaceWith(button);
		this.#parts[name] = button;
	}

	/** @param {() => Promise<any>} act */
	async #do(act) {
		if (this.#busy) return;
		this.#busy = true;
		this.#say("");
		try {
			const said = await act();
			this.#say(typeof said === "string" ? said : "");
		} catch (error) {
			this.#say(errorTexts[asTollgateError(error).code] ?? "failed");
		} finally {
			this.#busy = false;
		}
	}

	/** @param {string} message the name of a text, or nothing */
	#say(message) {
		this.#parts.message.textContent = textsFor(this)[message] ?? "";
	}

	/**
	 * Shows what is known now.
	 * @param {string} [message]
	 */
	update(message) {
		const { user, fault } = shown;
		const parts = this.#parts;
		const words = textsFor(this);
		const state = user ? "in" : user === null ? "out" : fault ? "error" : "loading";
		const hadFocus = this.shadowRoot?.activeElement;

		parts.box.setAttribute("aria-label", words.account);
		parts.box.setAttribute("aria-busy", String(state === "loading"));
		for (const name of ["loading", "login", "refresh", "topup", "logout", "retry"]) parts[name + "Text"].textContent = words[name];
		const name = user?.username ?? "";
		parts.name.textContent = visible.test(name) ? name : String(user?.id ?? "");
		parts.email.textContent = user?.email ?? "";
		parts.label.textContent = words.balance;
		parts.value.textContent = user?.balance.value ?? words.unknown;
		parts.low.textContent = user?.low ? words.low : "";

		parts.loading.hidden = state !== "loading";
		parts.login.hidden = state !== "out";
		parts.name.hidden = parts.balance.hidden = parts.refresh.hidden = state !== "in";
		parts.email.hidden = !user?.email;
		parts.topup.hidden = state !== "in" || !endpoints.topup;
		parts.logout.hidden = state !== "in" && fault?.code !== "refused";
		parts.retry.hidden = state !== "error";

		if (message) this.#say(message);
		else if (state === "error") this.#say(errorTexts[fault?.code ?? ""] ?? "failed");
		else if (this.dataset.state !== state) this.#say("");
		this.dataset.state = state;
		// Who worked with the keyboard goes on with what has come in the button's place.
		if (hadFocus instanceof HTMLElement && hadFocus.hidden) (state === "in" ? parts.refresh : parts.login).focus();
	}
}

/**
 * @param {string} tag
 * @param {string} part
 * @param {Record<string, string>} [attributes]
 */
function make(tag, part, attributes = {}) {
	const element = document.createElement(tag);
	if (part) element.setAttribute("part", part);
	for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
	return element;
}

// A page that loads this file under two addresses keeps the first element.
if (!customElements.get("tollgate-user")) customElements.define("tollgate-user", TollgateUser);
