// The steps of a workflow: dragged by their handles. The arrows beside them work without this script.
const list = document.querySelector("[data-steps]");

const send = (step, to) => {
  const form = step.querySelector("[data-move]");
  const place = document.createElement("input");
  place.type = "hidden";
  place.name = "to";
  place.value = String(to);
  form.append(place);
  form.submit();
};

const drag = (handle, step) => {
  let from = -1;
  handle.addEventListener("pointerdown", (event) => {
    if (event.button !== 0) return;
    event.preventDefault();
    handle.setPointerCapture(event.pointerId);
    from = [...list.children].indexOf(step);
    step.dataset.dragged = "";
  });
  handle.addEventListener("pointermove", (event) => {
    if (from < 0) return;
    for (const other of list.children) {
      if (other === step) continue;
      const box = other.getBoundingClientRect();
      if (event.clientY <= box.top || event.clientY >= box.bottom) continue;
      const isBefore = event.clientY < box.top + box.height / 2;
      list.insertBefore(step, isBefore ? other : other.nextSibling);
      break;
    }
  });
  const end = (event) => {
    if (from < 0) return;
    const to = [...list.children].indexOf(step);
    const moved = event.type === "pointerup" && to !== from;
    if (!moved && to !== from) list.insertBefore(step, list.children[from + (to < from ? 1 : 0)] ?? null);
    from = -1;
    delete step.dataset.dragged;
    if (moved) send(step, to);
  };
  handle.addEventListener("pointerup", end);
  handle.addEventListener("pointercancel", end);
};

for (const handle of list?.querySelectorAll("[data-handle]") ?? []) {
  handle.hidden = false;
  drag(handle, handle.closest("[data-step]"));
}
