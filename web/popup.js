(() => {
  "use strict";
  const page = document.getElementById("login");
  const { ok, nonce, error, origin } = page.dataset;
  const message = { type: "tollgate:login", ok: ok === "true", nonce };
  if (!message.ok) message.error = error;

  page.setAttribute("aria-busy", "true");
  // The opener is gone when the provider isolates its own window; the channel
  // still reaches the page, but only one of this very origin.
  try {
    if (window.opener && origin) window.opener.postMessage(message, origin);
  } catch {}
  try {
    const channel = new BroadcastChannel("tollgate");
    channel.postMessage(message);
    channel.close();
  } catch {}
  window.close();
  // Still here: a browser closes only what a script has opened.
  setTimeout(() => page.removeAttribute("aria-busy"), 600);
})();
