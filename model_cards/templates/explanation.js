"use strict";
for (const run of document.querySelectorAll(".run")) {
  const data = JSON.parse(run.querySelector("script").textContent);
  const slider = run.querySelector("input");
  const output = run.querySelector("output");
  const rows = [...run.querySelectorAll("tr[data-step]")];
  const functions = [...run.querySelectorAll(".function")];
  const box = run.querySelector(".steps");
  const last = data.steps.length;
  const place = new Map(data.cells.map((address, index) => [address, index]));

  const element = (parent, kind, name, text) => {
    const made = parent.appendChild(document.createElement(kind));
    made.className = name;
    made.textContent = text;
    return made;
  };
  const glyph = (word) => {
    if (word <= 32 || word >= 0x110000) return "";
    const character = String.fromCodePoint(word);
    return /[\p{C}\p{Z}\p{M}]/u.test(character) ? "" : character;
  };
  const word = (parent, label) => {
    const made = element(parent, "div", "word", "");
    made.value = element(made, "b", "", "");
    made.label = element(made, "span", "", label);
    return made;
  };

  const count = data.registers.length;
  const registers = data.registers.map((_, index) => {
    const label = index === count - 1 ? "sp" : index === count - 2 ? "hp" : "r" + index;
    const made = word(run.querySelector(".registers"), label);
    made.prepend(made.label);
    return made;
  });
  let stretch = null;
  const cells = data.cells.map((address, index) => {
    if (index === 0 || data.cells[index - 1] !== address - 1) {
      stretch = element(run.querySelector(".memory"), "div", "stretch", "");
      element(stretch, "span", "quiet", "from " + address);
    }
    const made = word(stretch, "");
    made.title = "memory[" + address + "]";
    return made;
  });

  const stateAfter = (position) => {
    const late = position > data.gap && data.late !== null;
    const state = late ? data.late : data;
    const now = { registers: [...state.registers], memory: [...state.memory] };
    for (const [, , , register, memory] of data.steps.slice(late ? data.gap : 0, position)) {
      if (register) now.registers[register[0]] = register[1];
      if (memory) now.memory[place.get(memory[0])] = memory[1];
    }
    return now;
  };

  const show = (position) => {
    const at = Math.max(0, Math.min(last, position));
    const state = stateAfter(at);
    const step = at > 0 ? data.steps[at - 1] : null;
    const [number, place_, line, register, memory, read] = step || [0, -1, 0, null, null, null];
    slider.value = at;
    slider.setAttribute("aria-valuetext", step ? "after step " + number : "before the first step");
    rows.forEach((row, index) => row.classList.toggle("now", index === at - 1));
    output.textContent = step
      ? "after step " + number.toLocaleString("en") + " of " + data.total.toLocaleString("en") + ": " +
        rows[at - 1].cells[1].textContent
      : "before the first step: the arguments are in memory";
    registers.forEach((made, index) => {
      made.value.textContent = state.registers[index];
      made.classList.toggle("changed", register !== null && register[0] === index);
    });
    cells.forEach((made, index) => {
      const address = data.cells[index];
      made.value.textContent = glyph(state.memory[index]);
      made.label.textContent = state.memory[index];
      made.classList.toggle("changed", memory !== null && memory[0] === address);
      made.classList.toggle("read", read === address);
      const [from, length] = at === last && data.result ? data.result : [0, 0];
      made.classList.toggle("result", address >= from && address < from + length);
    });
    functions.forEach((made, index) => {
      made.open = index === Math.max(0, place_);
      for (const each of made.querySelectorAll(".line")) {
        const here = index === place_ && Number(each.dataset.line) === line;
        each.classList.toggle("now", here);
        if (here) each.parentElement.scrollTop = each.offsetTop - each.parentElement.offsetTop - 60;
      }
    });
    const marked = run.querySelector(".memory .changed, .memory .read");
    const view = run.querySelector(".memory");
    if (marked) view.scrollTop = marked.offsetTop - view.offsetTop - view.clientHeight / 2;
    box.scrollTop = step ? rows[at - 1].offsetTop - box.clientHeight / 2 : 0;
  };

  const ways = {
    start: () => 0,
    back: () => Number(slider.value) - 1,
    forward: () => Number(slider.value) + 1,
    end: () => last,
  };
  for (const button of run.querySelectorAll("button")) {
    button.addEventListener("click", () => show(ways[button.dataset.go]()));
  }
  slider.addEventListener("input", () => show(Number(slider.value)));
  rows.forEach((row, index) => row.addEventListener("click", () => show(index + 1)));
  for (const part of run.querySelectorAll("[hidden]")) part.hidden = false;
  run.querySelector(".panes").classList.add("live");
  show(0);
}
