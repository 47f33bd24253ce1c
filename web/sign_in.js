// What stands behind the # of an address never reaches the server. So that a person
// comes back to that very place, this page sends it along as a part of return_to.
(() => {
  "use strict";
  for (const link of document.links) {
    const query = new URLSearchParams(link.search);
    const returnTo = query.get("return_to");
    if (!returnTo || link.origin !== location.origin) continue;
    query.set("return_to", returnTo + location.hash);
    link.search = query;
  }
})();
