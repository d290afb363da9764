"use strict";
// Texts of people and of models reach the page as text nodes alone, so that markup in them stays text.
(() => {
  const PER_PAGE = 25;
  const data = JSON.parse(document.getElementById("data").textContent);
  const at = (id) => document.getElementById(id);
  let page = 0;

  function make(tag, className, ...children) {
    const element = document.createElement(tag);
    if (className) element.className = className;
    element.append(...children);
    return element;
  }

  function fill(select, options) {
    for (const [value, label] of options) {
      const option = make("option", "", label);
      option.value = value;
      select.append(option);
    }
  }

  const show = (metric, value, signed) => {
    if (value === null) return "–";
    const text = Math.abs(value).toFixed(metric.digits);
    if (Number(text) === 0) return text;
    return (value < 0 ? "−" : signed ? "+" : "") + text;
  };

  function mean(prompt, policy, k) {
    const scores = prompt.responses[policy].map((response) => response.scores[k]);
    return scores.includes(null) ? null : scores.reduce((sum, score) => sum + score, 0) / scores.length;
  }

  function change(prompt, k) {
    const before = mean(prompt, at("against").value, k);
    const after = mean(prompt, "tuned", k);
    return before === null || after === null ? null : after - before;
  }

  function chosen() {
    const level = at("level").value;
    const order = at("order").value;
    const k = Number(at("score").value);
    const list = data.prompts.filter((prompt) => level === "all" || String(prompt.level) === level);
    if (order === "given") return list;
    const sign = order === "gain" ? -1 : 1;
    const changes = new Map(list.map((prompt) => [prompt, change(prompt, k)]));
    // Prompts without a change come last in either order.
    const key = (prompt) => (changes.get(prompt) === null ? Infinity : sign * changes.get(prompt));
    return list.sort((a, b) => (key(a) === key(b) ? 0 : key(a) - key(b)));
  }

  function folded(title, content) {
    return make("details", "", make("summary", "", title), content);
  }

  function responseOf(response) {
    const scores = make("ul", "scores");
    const k = Number(at("score").value);
    const first = [...new Set([k, ...data.shown])];
    for (const index of first) {
      scores.append(make("li", "", `${data.metrics[index].label} ${show(data.metrics[index], response.scores[index])}`));
    }
    if (!response.formed) scores.append(make("li", "malformed", "malformed"));
    if (response.seed !== null) scores.append(make("li", "", `training seed ${response.seed}`));
    const all = make("dl", "");
    data.metrics.forEach((metric, index) => {
      all.append(make("dt", "", metric.label), make("dd", "", `${show(metric, response.scores[index])} ${metric.unit}`));
    });
    if (response.stated !== null) all.append(make("dt", "", "stated intensity"), make("dd", "", String(response.stated)));
    const element = make("div", "response", make("p", "answer", response.answer || "(empty)"), scores);
    if (response.reasoning) element.append(folded("Reasoning", make("div", "reasoning", response.reasoning)));
    if (response.whole) element.append(folded("Whole reply", make("div", "reasoning", response.whole)));
    element.append(folded("All scores", all));
    return element;
  }

  function policyOf(prompt, policy) {
    const element = make("div", `policy ${policy}`, make("h4", "", data.labels[policy]));
    for (const response of prompt.responses[policy]) element.append(responseOf(response));
    return element;
  }

  function promptOf(prompt) {
    const k = Number(at("score").value);
    const metric = data.metrics[k];
    const intensity = prompt.level === null ? "intensity not labelled" : `intensity ${prompt.level}`;
    const head = make("header", "",
      make("h3", "", `Prompt ${prompt.id}`), make("span", "", intensity),
      make("span", "change", `change in ${metric.label} `, make("strong", "", show(metric, change(prompt, k), true)), metric.unit && ` ${metric.unit}`));
    const pair = make("div", "pair", policyOf(prompt, at("against").value), policyOf(prompt, "tuned"));
    return make("article", "prompt", head, make("blockquote", "", prompt.text), pair);
  }

  function draw() {
    const list = chosen();
    const pages = Math.max(1, Math.ceil(list.length / PER_PAGE));
    page = Math.min(page, pages - 1);
    const shown = list.slice(page * PER_PAGE, (page + 1) * PER_PAGE);
    at("list").replaceChildren(...shown.map(promptOf));
    at("count").textContent = `${list.length} of ${data.prompts.length} prompts, ${data.responses} responses in all`;
    at("page").textContent = `page ${page + 1} of ${pages}`;
    at("previous").disabled = page === 0;
    at("next").disabled = page === pages - 1;
  }

  function turn(step) {
    page += step;
    draw();
    at("responses-title").focus({ preventScroll: true });
    at("responses").scrollIntoView();
  }

  const levels = [...new Set(data.prompts.map((prompt) => String(prompt.level)))].sort();
  fill(at("level"), [["all", "all"], ...levels.map((level) => [level, level === "null" ? "not labelled" : level])]);
  fill(at("score"), data.metrics.map((metric, k) => [String(k), metric.label]));
  fill(at("against"), data.against.map((policy) => [policy, data.labels[policy]]));
  for (const id of ["level", "score", "order", "against"]) {
    at(id).addEventListener("change", () => {
      page = 0;
      draw();
    });
  }
  at("previous").addEventListener("click", () => turn(-1));
  at("next").addEventListener("click", () => turn(1));
  draw();
})();
