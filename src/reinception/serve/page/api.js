"use strict";
function element(name, properties = {}, ...children) {
  const made = Object.assign(document.createElement(name), properties);
  made.append(...children);
  return made;
}
fetch("openapi.json").then((answer) => answer.json()).then((document_) => {
  const sections = [];
  for (const [path, methods] of Object.entries(document_.paths)) {
    const shared = methods.parameters ?? [];
    for (const [method, one] of Object.entries(methods)) {
      if (method === "parameters") continue;
      const parameters = [...shared, ...(one.parameters ?? [])].map((given) => given.$ref ? document_.components.parameters[given.$ref.split("/").pop()] : given);
      const title = element("h2", {}, element("span", { className: "method", textContent: `${method.toUpperCase()} ` }), element("code", { textContent: path }));
      const section = element("section", {}, title, element("p", { textContent: one.summary }));
      if (parameters.length) section.append(element("dl", {}, ...parameters.flatMap((given) => [element("dt", {}, element("code", { textContent: given.name })), element("dd", { textContent: given.description ?? "" })])));
      section.append(element("dl", {}, ...Object.entries(one.responses).flatMap(([status, said]) => [element("dt", { textContent: status }), element("dd", { textContent: (said.$ref ? document_.components.responses[said.$ref.split("/").pop()] : said).description })])));
      if (one["x-example"]) section.append(element("pre", { tabIndex: 0 }, element("code", { textContent: one["x-example"] })));
      sections.push(section);
    }
  }
  document.getElementById("routes").append(...sections);
});
