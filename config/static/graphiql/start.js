// Starts GraphiQL on this page's own address. A staff session needs the CSRF token; a bearer token
// goes into the tab "Headers" as {"Authorization": "Bearer ..."} and is kept nowhere.
"use strict";

(function () {
  const place = document.getElementById("graphiql");
  const fetcher = GraphiQL.createFetcher({
    url: window.location.pathname,
    headers: { "X-CSRFToken": place.dataset.csrfToken },
  });
  ReactDOM.createRoot(place).render(
    React.createElement(GraphiQL, {
      fetcher: fetcher,
      shouldPersistHeaders: false,
      defaultQuery: place.dataset.defaultQuery,
    }),
  );
})();
