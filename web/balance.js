// A user who comes back from topping up gets the page again, because the balance may be enough
// now. A page that was loaded again goes on watching, because a payment may take a while.
(() => {
  "use strict";
  const isReloaded = performance.getEntriesByType("navigation")[0]?.type === "reload";
  let clicked = false;
  const topup = document.getElementById("topup");
  for (const type of ["click", "auxclick"]) topup?.addEventListener(type, () => (clicked = true));
  document.addEventListener("visibilitychange", () => {
    if ((clicked || isReloaded) && document.visibilityState === "visible") location.reload();
  });
  // For a window beside this one, which does not hide it. Not after a reload: a browser may send
  // the event while it loads a page, and the page would load again for ever.
  addEventListener("focus", () => {
    if (clicked) location.reload();
  });
})();
