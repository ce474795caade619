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
const EDGE = 70; // px from the window's edge, where a drag scrolls the page

const begin = (event, step) => {
  if (event.button !== 0) return;
  event.preventDefault();
  dragged = { step, order: [...list.children], at: event.clientY };
  step.dataset.dragged = "";
  window.requestAnimationFrame(scroll);
};

const place = () => {
  for (const other of list.children) {
    if (other === dragged.step) continue;
    const box = other.getBoundingClientRect();
    if (dragged.at <= box.top || dragged.at >= box.bottom) continue;
    const isBefore = dragged.at < box.top + box.height / 2;
    list.insertBefore(dragged.step, isBefore ? other : other.nextSibling);
    break;
  }
};

const scroll = () => {
  if (!dragged) return;
  const below = dragged.at - (window.innerHeight - EDGE);
  const above = EDGE - dragged.at;
  if (dragged.isMoved && (below > 0 || above > 0)) {
    window.scrollBy(0, below > 0 ? below / 4 : -above / 4);
    place();
  }
  window.requestAnimationFrame(scroll);
};

document.addEventListener("pointermove", (event) => {
  if (!dragged) return;
  dragged.at = event.clientY;
  dragged.isMoved = true;
  place();
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
