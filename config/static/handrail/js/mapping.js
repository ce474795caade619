// The mapping configurator. The server does all the reading: rows, JSON, values and problems come from it,
// as texts, so no number passes through here. Without this script the page is a form of plain fields.
const form = document.querySelector("[data-mapping]");
if (form) {
  const list = form.querySelector("[data-rows]");
  const template = document.getElementById("mapping-row").content.firstElementChild;
  const field = (name) => form.elements.namedItem(name);
  const part = (row, name) => row.querySelector(`[name="row_${name}"]`);
  const rows = () => (list ? [...list.querySelectorAll("[data-row]")] : []);
  const depth = (row) => Number(part(row, "depth").value) || 0;
  const FIELDS = ["origin", "shape", "depth", "kind", "name", "text", "default"];
  const LABELS = { depth: "Depth", name: "Output name", kind: "Kind", text: "Source", default: "Default" };
  let isBuilt = true; // whether the server could make a mapping of what is entered
  let source = null; // the source field that was used last

  form.classList.add("hr-map-scripted");
  for (const spare of form.querySelectorAll("noscript")) spare.remove();
  for (const one of form.querySelectorAll(".hr-map-tabs, .hr-map-keys, [data-do]")) one.hidden = false;

  const values = (row) => Object.fromEntries(FIELDS.map((name) => [name, part(row, name).value]));

  const setDepth = (row, to) => {
    part(row, "depth").value = String(Math.max(1, Math.min(64, to)));
  };

  const block = (row) => {
    const all = rows();
    const at = all.indexOf(row);
    let end = at + 1;
    while (end < all.length && depth(all[end]) > depth(row)) end += 1;
    return all.slice(at, end);
  };

  const parentOf = (row) => {
    const all = rows();
    for (let at = all.indexOf(row) - 1; at >= 0; at -= 1) if (depth(all[at]) < depth(row)) return all[at];
    return null;
  };

  const isContainer = (row) => ["object", "list"].includes(part(row, "kind").value);

  // What of the rows follows from their fields: indents, labels, what is hidden.
  const arrange = () => {
    rows().forEach((row, index) => {
      row.style.setProperty("--depth", part(row, "depth").value || "0");
      row.dataset.kind = part(row, "kind").value;
      const above = index ? parentOf(row) : null;
      row.toggleAttribute("data-item", Boolean(above) && part(above, "kind").value === "list");
      const name = part(row, "name").value;
      row.querySelector("[data-dotted]").hidden = !index || !name.includes(".") || row.hasAttribute("data-item");
      for (const [key, words] of Object.entries(LABELS)) {
        const input = part(row, key);
        if (input.type !== "hidden") input.setAttribute("aria-label", `${words}, row ${index + 1}`);
      }
      const isPath = row.dataset.kind === "source";
      part(row, "text").toggleAttribute("list", false);
      if (isPath) part(row, "text").setAttribute("list", "mapping-paths");
    });
  };

  const note = (row, { value, problems, warnings }) => {
    const notes = row.querySelector("[data-notes]");
    const made = [];
    const say = (className, text) => {
      const line = document.createElement("p");
      line.className = className;
      line.textContent = text;
      made.push(line);
    };
    if (value !== undefined) say("hr-help hr-code", `= ${value}`);
    for (const text of problems || []) say("hr-error", text);
    for (const text of warnings || []) say("hr-help hr-map-warning", text);
    notes.replaceChildren(...made);
    part(row, "text").setAttribute("aria-invalid", String(Boolean(problems?.length)));
  };

  const rowOf = (fields) => {
    const row = template.cloneNode(true);
    for (const one of row.querySelectorAll("[data-do]")) one.hidden = false;
    if (fields.kind === "none") part(row, "kind").prepend(new Option("No mapping", "none"));
    for (const name of FIELDS) part(row, name).value = fields[name];
    return row;
  };

  const showRows = (sent) => {
    const [root] = rows();
    for (const name of FIELDS) part(root, name).value = sent[0][name];
    root.after(...sent.slice(1).map(rowOf));
    // `after` put them first: what was there follows, and goes.
    rows().slice(sent.length).forEach((row) => row.remove());
    arrange();
  };

  const body = (doing) => {
    const data = new URLSearchParams({ do: doing });
    for (const name of ["csrfmiddlewaretoken", "seen_revision", "opened", "from", "text", "sample"]) data.set(name, field(name).value);
    data.set("rows", JSON.stringify(rows().map(values)));
    return data;
  };

  const show = (answer, { withRows = false } = {}) => {
    const isText = field("from").value === "text";
    if (isText && !answer.textError) {
      field("opened").value = answer.opened;
      if (answer.rows && list) showRows(answer.rows);
    } else if (withRows && answer.rows) showRows(answer.rows);
    isBuilt = answer.isBuilt;
    if (!isText && isBuilt) field("text").value = answer.text;
    if (!(isText && answer.textError)) {
      rows().forEach((row, index) => note(row, {
        value: answer.values[index], problems: answer.problems[index], warnings: answer.warnings[index],
      }));
    }
    const set = (name, text) => { form.querySelector(`[data-${name}]`).textContent = text; };
    set("text-error", answer.textError);
    set("sample-error", answer.sampleError);
    set("general", [...answer.general, ...(isText && !list ? Object.values(answer.problems).flat() : [])].join("; "));
    set("payload", answer.payload ?? "");
    const { isNone } = answer;
    form.querySelector("[data-payload]").hidden = answer.payload === null;
    form.querySelector("[data-without]").hidden = !isNone;
    form.querySelector("[data-nothing]").hidden = answer.payload !== null || isNone;
  };

  let asked = 0;
  const ask = async (doing, options) => {
    asked += 1;
    const mine = asked;
    try {
      const response = await fetch(form.action, { method: "POST", body: body(doing), headers: { Accept: "application/json" } });
      if (!response.ok) throw new Error(String(response.status));
      const answer = await response.json();
      if (mine === asked) show(answer, options);
      return mine === asked;
    } catch {
      if (mine === asked) form.querySelector("[data-general]").textContent = "The preview could not be had; what you entered is still here.";
      return false;
    }
  };

  let timer = 0;
  const askSoon = () => {
    window.clearTimeout(timer);
    timer = window.setTimeout(() => ask("preview"), 350);
  };

  // What a button changed is a change like what is typed.
  const say = () => form.dispatchEvent(new Event("input", { bubbles: true }));

  const view = (name) => {
    for (const panel of form.querySelectorAll("[data-panel]")) panel.toggleAttribute("data-hide", panel.dataset.panel !== name);
    for (const tab of form.querySelectorAll("[data-view]")) tab.setAttribute("aria-pressed", String(tab.dataset.view === name));
    field("from").value = name;
  };

  const newRow = (at) => rowOf({ origin: "", shape: "", kind: "source", name: "", text: "", default: "", depth: String(at) });

  const ACTIONS = {
    add(row) {
      const inside = isContainer(row);
      const made = newRow(depth(row) + (inside ? 1 : 0));
      (inside ? row : block(row).at(-1)).after(made);
      return made;
    },
    remove(row) {
      const gone = block(row);
      const next = gone.at(-1).nextElementSibling || row.previousElementSibling;
      gone.forEach((one) => one.remove());
      return next;
    },
    in(row) {
      const above = rows()[rows().indexOf(row) - 1];
      if (above && depth(row) <= depth(above) - (isContainer(above) ? 0 : 1)) block(row).forEach((one) => setDepth(one, depth(one) + 1));
      return row;
    },
    out(row) {
      if (depth(row) > 1) block(row).forEach((one) => setDepth(one, depth(one) - 1));
      return row;
    },
    up(row) {
      const all = rows();
      for (let at = all.indexOf(row) - 1; at > 0 && depth(all[at]) >= depth(row); at -= 1) {
        if (depth(all[at]) === depth(row)) { all[at].before(...block(row)); break; }
      }
      return row;
    },
    down(row) {
      const mine = block(row);
      const next = mine.at(-1).nextElementSibling;
      if (next && depth(next) === depth(row)) block(next).at(-1).after(...mine);
      return row;
    },
  };

  const act = (doing, row, focused) => {
    const target = ACTIONS[doing](row);
    arrange();
    const name = doing === "add" ? "name" : focused;
    const wanted = target && (name ? part(target, name) : target.querySelector(`[data-do="${doing}"]`));
    (wanted && wanted.type !== "hidden" && getComputedStyle(wanted).visibility !== "hidden" ? wanted : target && part(target, "kind"))?.focus();
    say();
  };

  form.addEventListener("click", async (event) => {
    const tab = event.target.closest("[data-view]");
    if (tab) {
      // The other view shows what this one came to; what does not build a mapping keeps its view.
      const isAnswered = await ask("preview");
      if (isAnswered && isBuilt && (tab.dataset.view === "text" || list)) view(tab.dataset.view);
      else if (isAnswered) form.querySelector("[data-general]").textContent = "Mend what is marked first: the views show the same mapping.";
      return;
    }
    const button = event.target.closest("[data-do]");
    if (!button) return;
    event.preventDefault();
    const row = button.closest("[data-row]");
    if (button.dataset.do === "append") {
      const [root] = rows();
      if (part(root, "kind").value === "none") part(root, "kind").value = "object";
      list.append(newRow(1));
      arrange();
      part(rows().at(-1), "name").focus();
      say();
    } else if (button.dataset.do === "nest") {
      const index = rows().indexOf(row);
      if (await ask(`nest:${index}`, { withRows: true })) {
        part(rows()[index], "name").focus();
        say();
      }
    } else act(button.dataset.do, row);
  });

  form.addEventListener("keydown", (event) => {
    const row = event.target.closest?.("[data-row]");
    if (!row || row.hasAttribute("data-root")) return;
    const name = event.target.name?.replace("row_", "");
    const arrows = { ArrowUp: "up", ArrowDown: "down", ArrowLeft: "out", ArrowRight: "in" };
    if (event.altKey && arrows[event.key]) {
      event.preventDefault();
      act(arrows[event.key], row, name);
    } else if (event.key === "Enter" && event.target.tagName === "INPUT") {
      event.preventDefault(); // in the source it takes the offered path
      if (name !== "text") act("add", row);
    }
  });

  form.addEventListener("input", (event) => {
    if (event.target.name?.startsWith("row_")) arrange();
    askSoon();
  });
  form.addEventListener("focusin", (event) => {
    if (event.target.name === "row_text") source = event.target;
  });

  document.addEventListener("click", (event) => {
    const button = event.target.closest("[data-insert]");
    if (!button || !source?.isConnected) return;
    source.value = button.dataset.insert;
    const kind = part(source.closest("[data-row]"), "kind");
    kind.value = "source";
    arrange();
    source.focus();
    say();
  });

  // One field for all rows: a form may have so many fields and no more.
  form.addEventListener("submit", () => {
    const packed = document.createElement("input");
    packed.type = "hidden";
    packed.name = "rows";
    packed.value = JSON.stringify(rows().map(values));
    form.append(packed);
    for (const row of rows()) for (const name of FIELDS) part(row, name).disabled = true;
  });

  view(field("from").value);
  arrange();
}
