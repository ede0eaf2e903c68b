// Runs before anything else: fixes language and theme from the reply, so that nothing flashes and Gradio follows.
(() => {
  const { lang, theme, text } = document.currentScript.dataset;
  const root = document.documentElement;
  root.lang = lang;
  root.dataset.text = text;
  for (const [name, value] of [["language", lang], ["languages", [lang]]]) {
    Object.defineProperty(navigator, name, { get: () => value, configurable: true });
  }
  const systemMedia = window.matchMedia.bind(window);
  const isDark = () => (root.dataset.theme || theme) === "dark" ||
    (!(root.dataset.theme || theme) && systemMedia("(prefers-color-scheme: dark)").matches);
  window.matchMedia = (query) => {
    if (!/prefers-color-scheme:\s*(dark|light)/.test(query) || !(root.dataset.theme || theme)) return systemMedia(query);
    const matches = /dark/.test(query) === isDark();
    const none = () => {};
    return { matches, media: query, onchange: null, addListener: none, removeListener: none,
      addEventListener: none, removeEventListener: none, dispatchEvent: () => true };
  };
  const paint = () => {
    root.classList.toggle("dark", isDark());
    if (document.body) document.body.classList.toggle("dark", isDark());
    const button = document.querySelector("[data-theme-switch]");
    if (button) button.textContent = isDark() ? button.dataset.light : button.dataset.dark;
  };
  const remember = (name, value) => {
    document.cookie = `${name}=${value}; path=/; max-age=31536000; SameSite=Lax`;
  };
  paint();
  document.addEventListener("DOMContentLoaded", paint);
  document.addEventListener("click", (event) => {
    const button = event.target.closest?.("[data-lang-to], [data-theme-switch]");
    if (!button) return;
    if (button.dataset.langTo) {
      remember("wh_lang", button.dataset.langTo);
      location.reload();
    } else {
      root.dataset.theme = isDark() ? "light" : "dark";
      remember("wh_theme", root.dataset.theme);
      paint();
    }
  });
  // Gradio hears of what is typed into a text field by the key press, which paste, cut, deletion, undo, a drop and input methods
  // (all of Chinese) do not have: without this a page would go on with the text as it was before.
  let pressed = false;
  const tell = (field) => {
    if (field.matches?.("[data-testid=textbox]")) field.dispatchEvent(new KeyboardEvent("keypress", { key: "", bubbles: true }));
  };
  document.addEventListener("keypress", (event) => {
    if (!event.isTrusted) return;
    pressed = true; // its input follows within this task
    setTimeout(() => { pressed = false; });
  }, true);
  document.addEventListener("input", (event) => { if (!pressed && !event.isComposing) tell(event.target); });
  document.addEventListener("compositionend", (event) => tell(event.target));
})();
