// A path of the answer is copied when it is chosen; without this script it is there to be read.
const told = document.querySelector("[data-copied]");
document.addEventListener("click", async (event) => {
  const button = event.target.closest("[data-copy]");
  if (!button) return;
  try {
    await navigator.clipboard.writeText(button.dataset.copy);
    told.textContent = `Copied: ${button.dataset.copy}`;
  } catch {
    // No clipboard without HTTPS, or it was refused: mark the text instead.
    const range = document.createRange();
    range.selectNodeContents(button);
    window.getSelection().removeAllRanges();
    window.getSelection().addRange(range);
    told.textContent = `Marked, to be copied: ${button.dataset.copy}`;
  }
});
