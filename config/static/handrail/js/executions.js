// The list of executions: one checkbox for all of the page.
const all = document.querySelector("[data-select-all]");
const boxes = [...document.querySelectorAll("input[name='ids']")];

const tell = () => {
  const chosen = boxes.filter((box) => box.checked).length;
  all.checked = chosen > 0 && chosen === boxes.length;
  all.indeterminate = chosen > 0 && chosen < boxes.length;
};

if (all) {
  all.addEventListener("change", () => {
    for (const box of boxes) box.checked = all.checked;
  });
  for (const box of boxes) box.addEventListener("change", tell);
  tell();
}
