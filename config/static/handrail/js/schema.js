// The field editor: rows that are added, moved and removed, and only the inputs that a type has.
// It knows nothing of schemas: the server makes them of the rows.
const setUp = (editor) => {
  const prefix = editor.dataset.rows;
  const list = editor.querySelector("[data-list]");
  const isReadOnly = editor.closest("form").querySelector("button.hr-button-primary") === null;

  const showPanel = () => {
    const chosen = editor.querySelector(`[name="${prefix}-as"]:checked`)?.value;
    for (const panel of editor.querySelectorAll("[data-panel]")) {
      panel.hidden = panel.dataset.panel !== chosen;
    }
  };
  for (const radio of editor.querySelectorAll(`[name="${prefix}-as"]`)) {
    radio.addEventListener("change", showPanel);
  }
  showPanel();
  if (!list) return;

  const say = () => editor.dispatchEvent(new Event("input", { bubbles: true }));
  const count = () => {
    const rows = list.querySelectorAll("[data-row]");
    editor.querySelector("[data-none]").hidden = rows.length > 0;
    rows.forEach((row, at) => {
      row.querySelector("[data-up]").disabled = at === 0;
      row.querySelector("[data-down]").disabled = at === rows.length - 1;
    });
  };

  const prepare = (row) => {
    const type = row.querySelector("[data-type]");
    const showInputs = () => {
      for (const label of row.querySelectorAll("[data-for]")) {
        label.hidden = !label.dataset.for.split(" ").includes(type.value);
      }
    };
    const name = row.querySelector("[data-name]");
    name.addEventListener("input", () => {
      row.querySelector("[data-row-name]").textContent = name.value || "(new)";
    });
    type.addEventListener("change", showInputs);
    showInputs();
    row.querySelector("[data-noscript]").hidden = true;
    if (isReadOnly) {
      for (const input of row.querySelectorAll("input, select, textarea")) input.disabled = true;
      return;
    }
    for (const button of row.querySelectorAll("button")) button.hidden = false;
    const move = (button, place) =>
      button.addEventListener("click", () => {
        place();
        count();
        say();
        (button.disabled ? row.querySelector("[data-name]") : button).focus();
      });
    move(row.querySelector("[data-up]"), () => row.previousElementSibling?.before(row));
    move(row.querySelector("[data-down]"), () => row.nextElementSibling?.after(row));
    row.querySelector("[data-remove]").addEventListener("click", () => {
      const next = row.nextElementSibling ?? row.previousElementSibling;
      row.remove();
      count();
      say();
      (next?.querySelector("[data-name]") ?? editor.querySelector("[data-add]")).focus();
    });
  };

  for (const row of list.querySelectorAll("[data-row]")) {
    const isSpare = !row.querySelector("[data-name]").value && !row.querySelector(".hr-error");
    if (isSpare) row.remove();
    else prepare(row);
  }
  count();

  const add = editor.querySelector("[data-add]");
  add.hidden = isReadOnly;
  let next = 1000;
  add.addEventListener("click", () => {
    const made = editor.querySelector("template").content.firstElementChild.cloneNode(true);
    for (const input of made.querySelectorAll("[name]")) {
      input.name = input.name.replace(`${prefix}-new-`, `${prefix}-${next}-`);
    }
    next += 1;
    list.append(made);
    prepare(made);
    count();
    made.querySelector("[data-name]").focus();
  });
};

for (const editor of document.querySelectorAll("[data-rows]")) setUp(editor);

// A link to a field opens what it is folded into; to one behind the other view, it leads to the editor.
const reveal = () => {
  const target = location.hash && document.getElementById(location.hash.slice(1));
  if (!target) return;
  target.closest("details")?.setAttribute("open", "");
  (target.closest("[data-panel][hidden]")?.closest("[data-rows]") ?? target).scrollIntoView();
};
window.addEventListener("hashchange", reveal);
reveal();
