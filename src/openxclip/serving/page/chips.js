// Labels as chips: typed, pasted or removed, by mouse and by keyboard.

export class Chips {
  constructor(list, input, onChange) {
    this.list = list;
    this.input = input;
    this.onChange = onChange;
    this.labels = [];
    input.addEventListener("keydown", (event) => this.onKey(event));
    input.addEventListener("input", () => /[,\n;]/.test(input.value) && this.take());
    input.addEventListener("blur", () => this.take());
    input.addEventListener("paste", (event) => this.onPaste(event));
    list.parentElement.addEventListener("click", (event) => event.target === list.parentElement && input.focus());
  }

  onKey(event) {
    if (event.key === "Enter" && this.input.value.trim()) {
      event.preventDefault();
      this.take();
    } else if (event.key === "Backspace" && !this.input.value && this.labels.length) {
      this.set(this.labels.slice(0, -1));
    }
  }

  onPaste(event) {
    const text = event.clipboardData.getData("text");
    if (!/[\n,;]/.test(text)) return;
    event.preventDefault();
    this.add(text);
  }

  take() {
    this.add(this.input.value);
    this.input.value = "";
  }

  add(text) {
    const known = new Set(this.labels.map((label) => label.toLowerCase()));
    const added = [];
    for (const label of text.split(/[,\n;]/).map((part) => part.trim())) {
      if (!label || known.has(label.toLowerCase())) continue;
      known.add(label.toLowerCase());
      added.push(label);
    }
    if (added.length) this.set([...this.labels, ...added]);
  }

  set(labels) {
    this.labels = labels;
    this.list.replaceChildren(...labels.map((label) => this.chip(label)));
    this.onChange();
  }

  chip(label) {
    const item = document.createElement("li");
    const remove = document.createElement("button");
    remove.type = "button";
    remove.textContent = "×";
    remove.setAttribute("aria-label", `Remove ${label}`);
    remove.onmousedown = (event) => event.preventDefault(); // leaving the field would draw the chips anew, under the pointer
    remove.onclick = () => {
      this.set(this.labels.filter((other) => other !== label));
      this.input.focus();
    };
    item.append(label, remove);
    return item;
  }
}
