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

// The document listens: a handle that is moved within the page loses the pointer.
let dragged = null;

const begin = (event, step) => {
  if (event.button !== 0) return;
  event.preventDefault();
  dragged = { step, order: [...list.children] };
  step.dataset.dragged = "";
};

document.addEventListener("pointermove", (event) => {
  if (!dragged) return;
  for (const other of list.children) {
    if (other === dragged.step) continue;
    const box = other.getBoundingClientRect();
    if (event.clientY <= box.top || event.clientY >= box.bottom) continue;
    const isBefore = event.clientY < box.top + box.height / 2;
    list.insertBefore(dragged.step, isBefore ? other : other.nextSibling);
    break;
  }
});

const end = (event) => {
  if (!dragged) return;
  const { step, order } = dragged;
  dragged = null;
  delete step.dataset.dragged;
  const to = [...list.children].indexOf(step);
  if (to === order.indexOf(step)) return;
  if (event.type === "pointerup") send(step, to);
  else list.replaceChildren(...order);
};
document.addEventListener("pointerup", end);
document.addEventListener("pointercancel", end);

for (const handle of list?.querySelectorAll("[data-handle]") ?? []) {
  handle.hidden = false;
  handle.addEventListener("pointerdown", (event) => begin(event, handle.closest("[data-step]")));
}
