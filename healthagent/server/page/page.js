// Fetches what changes and puts in place what is different, so that focus, selection and open details stay.
(() => {
  "use strict";
  const lost = document.getElementById("lost");
  let heard = new Date(), timer = 0, asking = false;

  const alike = (one, other) =>
    one.nodeType === other.nodeType && one.nodeName === other.nodeName && (one.id || "") === (other.id || "");

  function become(old, made) {
    if (old.nodeType !== Node.ELEMENT_NODE) {
      if (old.data !== made.data) old.data = made.data;
      return;
    }
    for (const {name, value} of [...made.attributes])
      if (old.getAttribute(name) !== value) old.setAttribute(name, value);
    for (const {name} of [...old.attributes])
      if (!made.hasAttribute(name) && !(name === "open" && old.localName === "details")) old.removeAttribute(name);
    let left = old.firstChild;
    for (const wanted of [...made.childNodes]) {
      if (left && !alike(left, wanted) && left.nextSibling && alike(left.nextSibling, wanted)) {
        const gone = left; // a section that is no longer there
        left = left.nextSibling;
        gone.remove();
      }
      if (left && alike(left, wanted)) {
        become(left, wanted);
        left = left.nextSibling;
      } else {
        old.insertBefore(wanted, left);
      }
    }
    while (left) {
      const gone = left;
      left = left.nextSibling;
      gone.remove();
    }
  }

  async function look() {
    if (asking || document.hidden) return;
    asking = true;
    try {
      const reply = await fetch("?part=live", {cache: "no-store", redirect: "error", signal: AbortSignal.timeout(4000)});
      if (!reply.ok) throw new Error(`status ${reply.status}`);
      const made = new DOMParser().parseFromString(await reply.text(), "text/html").getElementById("live");
      if (!made) throw new Error("not this page");
      become(document.getElementById("live"), made);
      document.title = made.dataset.title;
      heard = new Date();
      lost.hidden = true;
      document.body.classList.remove("lost");
    } catch {
      const since = heard.toISOString().slice(11, 19);
      const words = `No answer from this agent since ${since} UTC. What you see is from then.`;
      if (lost.hidden || lost.textContent !== words) lost.textContent = words;
      lost.hidden = false;
      document.body.classList.add("lost");
      document.title = `? ${document.title.replace(/^\S+ /, "")}`;
    }
    asking = false;
  }

  function soon() {
    clearTimeout(timer);
    timer = setTimeout(() => look().then(soon), Number(document.getElementById("live").dataset.every) || 1000);
  }
  document.addEventListener("visibilitychange", () => look().then(soon));
  soon();
})();
