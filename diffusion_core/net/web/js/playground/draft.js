// What was typed is kept in this tab, whatever happens to the server or the session.

const KEY = "unmask.draft";

export function load() {
  try {
    return JSON.parse(sessionStorage.getItem(KEY)) ?? null;
  } catch {
    return null;
  }
}

export function save(draft) {
  try {
    sessionStorage.setItem(KEY, JSON.stringify(draft));
  } catch {
    // More than the browser keeps (some five million characters): the text stays where it is, in the editor.
  }
}
