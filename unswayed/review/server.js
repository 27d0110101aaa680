// What the page asks of the server. The address of the page holds the token; nothing leaves this machine.

async function answer(request) {
  let response;
  try {
    response = await request;
  } catch {
    throw new Error("The server does not answer: is unswayed review still running? Nothing that was saved is lost.");
  }
  const found = await response.json().catch(() => ({ error: `The server answered ${response.status}.` }));
  if (!response.ok) throw new Error(found.error || `The server answered ${response.status}.`);
  return found;
}

export function ask(what, query = {}) {
  const words = new URLSearchParams(Object.entries(query).filter(([, value]) => value !== "" && value !== null && value !== undefined));
  return answer(fetch(`api/${what}?${words}`));
}

// keepalive: a decision made in the moment in which the page is closed still arrives.
export function tell(what, words) {
  const headers = { "content-type": "application/json" };
  return answer(fetch(`api/${what}`, { method: "POST", headers, body: JSON.stringify(words), keepalive: true }));
}

export function preview(at, full = false) {
  return full ? `preview/${at}?size=full` : `preview/${at}`;
}
