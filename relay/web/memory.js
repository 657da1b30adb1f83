/**
 * What the page keeps for its own tab, so that a reload goes on where it was: the session's
 * secret, the conversation, and the chat that was under way.
 */
const KEY = 'relay.chat';
const TOKEN_KEY = 'relay.token';

/** What was kept: `{session, turns, pending, provider}`; null where nothing valid is. */
export function recall(storage = sessionStorage) {
  try {
    const kept = JSON.parse(storage.getItem(KEY));
    return Array.isArray(kept?.turns) ? kept : null;
  } catch {
    return null;
  }
}

/** Keep the state; a full or forbidden storage only means that a reload starts anew. */
export function keep(state, storage = sessionStorage) {
  try {
    storage.setItem(KEY, JSON.stringify(state));
  } catch {
    // Nothing to be done: the page works without.
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

/** Keep an access token for this tab. */
export function keepToken(token) {
  try {
    sessionStorage.setItem(TOKEN_KEY, token);
  } catch {
    // It holds until the page is closed.
  }
}
