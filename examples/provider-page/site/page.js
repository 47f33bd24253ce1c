const element = (id) => document.getElementById(id);

element("login").onclick = () => {
	location.href = "/auth/oauth/start";
};
element("refresh").onclick = () => show("/oauth/refresh", { method: "POST" });

/** Asks who is signed in, and shows that. */
async function show(path, options) {
	try {
		const response = await fetch(path, options);
		if (!response.ok && response.status !== 401) throw new Error(`status ${response.status}`);
		showUser(response.ok ? await response.json() : null);
	} catch {
		showError("unavailable");
	}
	element("loading").hidden = true;
}

/** Shows the provider's fields, or the sign-in button where nobody is signed in. */
function showUser(user) {
	element("user-info").hidden = !user;
	element("login-section").hidden = Boolean(user);
	element("username").textContent = user?.username ?? "";
	element("email").textContent = user?.email ?? "";
	element("balance").textContent = user?.balance_formatted ?? "";
}

/** Shows a code as text: anybody can write what they like into an address. */
function showError(code) {
	element("error").textContent = `That did not work: ${code}`;
	element("error").hidden = false;
}

const code = new URLSearchParams(location.search).get("error");
if (code) showError(code);
if (location.search) history.replaceState(null, "", location.pathname);
show("/api/user/info");
