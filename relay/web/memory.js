/**
 * What the page saves for its own tab, so that a reload continues where it was: the session's
 * secret, the conversation, and the running chat.
 */
const KEY = 'relay.chat';
const TOKEN_KEY = 'relay.token';

/** What was saved: `{session, turns, pending, provider}`; null if there is nothing valid. */
export function recall(storage = sessionStorage) {
  try {
    const kept = JSON.parse(storage.getItem(KEY));
    return Array.isArray(kept?.turns) ? kept : null;
  } catch {
    return null;
  }
}

/** Save the state. If the storage is full or forbidden, a reload only starts a new conversation. */
export function keep(state, storage = sessionStorage) {
  try {
    storage.setItem(KEY, JSON.stringify(state));
  } catch {
    // Ignored: the page works without.
  }
}

/** The access token that was entered in this tab, or null. */
export function recallToken() {
  try {
    return sessionStorage.getItem(TOKEN_KEY);
  } catch {
    return null;
  }
}

/** Save an access token for this tab. */
export function keepToken(token) {
  try {
    sessionStorage.setItem(TOKEN_KEY, token);
  } catch {
    // Ignored: the token is used until the page is closed.
  }
}
