"""Test the page on which people rate: what it holds, and in headless Chromium what it does."""

import itertools
import json
import re
import time

import pytest

import browser
import made_up
from conftest import ROOT
from gpro_empathy import files
from gpro_empathy.analysis import rated_items, rated_policies, rating_power
from gpro_empathy.data import ratings
from gpro_empathy.files import UserError
from gpro_empathy.report import web_page
from gpro_empathy.stages import analyse_ratings
from gpro_empathy.tools import rating_page

MARKUP = "</script><script>document.title='bad'</script><img src=x onerror=\"document.title='bad'\"> @DATA@ \u2028 "
WIDE = "x" * 300
SCREENS = pytest.mark.parametrize("size", [browser.DESKTOP, browser.PHONE], ids=["desktop", "phone"])


def made_up_rows(prompts=30, text="", **others):
    """Make rollouts in which every answer to every message is another."""
    rows = made_up.rollouts(prompts=prompts, conversations=prompts, stories=prompts, **others)
    for k, row in enumerate(rows):
        row["prompt"] = f"{text}{row['prompt']} ({row['prompt_id']})"
        row["answer"] = f"{text}{row['answer']} ({k})"
    return rows


def items(rows):
    return rated_items.items(rows)


def page_of(rows, form="pair", number=20, taken=()):
    return rating_page.render(rating_page.units(items(rows), form), form, number, taken)


def data_of(page):
    return json.loads(re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.DOTALL)[1])


# --- What the page holds.


@pytest.mark.parametrize("form", ["pair", "single"])
def test_page_says_nothing_about_who_answered(form):
    rows = made_up_rows()
    other = {"warm_start": "tuned", "tuned": "warm_start"}
    exchanged = [
        row | {"model": other.get(row["model"], row["model"]), "seed": 23 if row["model"] == "warm_start" else None}
        for row in rows
    ]
    assert page_of(exchanged, form) == page_of(rows, form)
    data = data_of(page_of(rows, form))
    assert {key for unit in data["units"] for key in unit} == {"message", "answers"}
    assert {key for unit in data["units"] for answer in unit["answers"] for key in answer} == {"hash", "text"}


def test_pairs_are_the_first_answers_of_both_policies():
    rows = made_up_rows(prompts=3)
    shown = {
        (unit["message"], answer["text"]) for unit in data_of(page_of(rows))["units"] for answer in unit["answers"]
    }
    assert shown == {
        (row["prompt"], row["answer"]) for row in rows if row["sample"] == 0 and row["model"] in ("warm_start", "tuned")
    }


def test_an_answer_that_both_policies_gave_is_no_pair_and_is_rated_once_by_itself():
    rows = made_up_rows(prompts=2)
    for row in rows:
        if row["prompt_id"] == rows[0]["prompt_id"]:
            row["answer"] = "I see."
    assert len(data_of(page_of(rows))["units"]) == 1
    singles = data_of(page_of(rows, "single"))["units"]
    assert sorted(len(unit["answers"]) for unit in singles) == [1, 2]


def test_policies_that_always_answer_alike_leave_no_pair():
    rows = [row | {"answer": "I see."} for row in made_up_rows(prompts=2)]
    with pytest.raises(UserError, match=r"\bpair\b.*--form single"):
        page_of(rows)


def test_content_policy_allows_the_two_inline_sources_and_no_other():
    page = page_of(made_up_rows(prompts=2))
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', page)[1]
    for directive, element in (("style-src", "style"), ("script-src", "script")):
        source = re.search(rf"<{element}>(.*?)</{element}>", page, re.DOTALL)[1]
        assert f"{directive} '{web_page.source_hash(source)}'" in policy
    assert policy.startswith("default-src 'none'; base-uri 'none'; form-action 'none'")
    assert "unsafe" not in policy
    assert re.findall(r"(?:src|href)=\"?(?!data:,)[\w/#]", page.partition('id="data"')[0]) == []


def test_same_run_gives_the_same_page():
    assert page_of(made_up_rows()) == page_of(made_up_rows())


def test_time_is_that_of_reading_all_and_deciding():
    rows = made_up.rollouts(prompts=2, conversations=2, stories=2)
    for k, row in enumerate(rows):
        row["prompt"], row["answer"] = f"{row['prompt_id']} " + "word " * 37, f"{k} " + "word " * 39
    # A pair has 38 + 2 * 40 words, about 29.7 s at 238 a minute, and 10 s to decide: 39.7 s.
    pairs = rating_page.units(items(rows), "pair")
    assert [rating_page.minutes(pairs, "pair", number) for number in (1, 2, 20)] == [1, 1, 1]
    singles = rating_page.units(items(rows), "single")
    many = [*pairs] * 10
    assert rating_page.minutes(many, "pair", 20) == 13
    # A single answer has 38 + 40 words, and takes 29.7 s.
    assert rating_page.minutes([*singles] * 5, "single", 20) == 10


def test_a_quarter_of_a_round_is_the_same_for_all():
    rows = made_up_rows()
    assert data_of(page_of(rows, "pair", number=20))["shared"] == 5
    assert data_of(page_of(rows, "pair", number=3))["shared"] == 1
    # A unit has two answers: three units are the first that hold five.
    assert data_of(page_of(rows, "single", number=20))["shared"] == 3
    assert data_of(page_of(rows, "pair", number=1000))["shared"] == 30


def contrast(one, other):
    """Return the contrast of two colours as WCAG 2.2 defines it."""

    def luminance(colour):
        parts = (int(colour[k : k + 2], 16) / 255 for k in (1, 3, 5))
        linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    light, dark = sorted((luminance(one), luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


@pytest.mark.parametrize("theme", [0, 1], ids=["light", "dark"])
def test_colours_have_the_contrast_that_wcag_asks_for(theme):
    blocks = re.findall(r":root \{(.*?)\}", files.read_text(rating_page.TEMPLATE), re.DOTALL)
    colour = dict(re.findall(r"--([\w-]+): (#\w{6})", blocks[theme]))
    for text, ground in itertools.product(("ink", "quiet", "accent"), ("ground", "panel")):
        assert contrast(colour[text], colour[ground]) >= 4.5, (text, ground)
    assert contrast(colour["on-accent"], colour["accent"]) >= 4.5
    assert contrast(colour["warn"], colour["warn-ground"]) >= 4.5
    assert min(contrast(colour["edge"], colour[ground]) for ground in ("ground", "panel")) >= 3


# --- From files to a file.


def write_run(root, rows):
    files.write_jsonl(root / rating_page.ROLLOUTS, rows)


def test_run_writes_the_page_and_says_how_many_a_rater_gets(tmp_path):
    write_run(tmp_path, made_up_rows())
    said = rating_page.run("pair", 20, root=tmp_path)
    assert (tmp_path / rating_page.PAGE).exists()
    assert "20 of 30 pairs for each rater" in said
    assert "60 of 60 single answers" in rating_page.run("single", 100, root=tmp_path)


def said_of(pairs):
    rated = rating_page.units(items(made_up_rows(prompts=2)), "pair")[:1] * pairs
    return rating_page.summary(rated, "pair", 20, rating_page.PAGE)


def test_number_of_pairs_and_raters_is_that_of_the_planned_win_rate():
    needed = rating_power.pairs_needed(rated_policies.PLANNED, rating_page.TIES, rating_page.DESIGN_EFFECT)
    takes = f"win rate of 60 % from an even one takes about {needed} rated pairs"
    assert f"{takes}, {-(-needed // 20)} raters of 20 (two-sided" in said_of(needed)
    assert f"{takes}, and this run has {needed - 1}: " in said_of(needed - 1)


def test_pairs_of_a_small_run_are_said_to_tell_a_win_rate_that_they_do():
    said = said_of(90)
    told = int(re.search(r"these, each rated once, tell one of (\d+) % or more from an even one", said)[1])
    taken = [
        rating_power.pairs_needed(rate / 100, rating_page.TIES, rating_page.DESIGN_EFFECT) for rate in (told - 1, told)
    ]
    assert taken[1] <= 90 < taken[0]
    assert "raters of 20" not in said
    assert "and this run has 5: these, each rated once, tell no win rate from an even one" in said_of(5)


@pytest.mark.parametrize("seeds", [(23,), (24, 23)])
def test_without_rollouts_the_responses_are_those_of_the_results_page(tmp_path, seeds):
    rows = made_up_rows(seeds=seeds)
    (tmp_path / "reports").mkdir()
    data = web_page.embedded_json(web_page.browser_data(rows, ["empathy_raw"], "warm_start"))
    page = f'<script type="application/json" id="data">{data}</script>'
    (tmp_path / rating_page.RESULTS).write_text(page, encoding="utf-8")
    found, source = rating_page.run_rows(tmp_path)
    assert source == rating_page.RESULTS
    known = [(item.hash, item.policy, item.prompt_id) for item in items(rows)]
    assert sorted((item.hash, item.policy, item.prompt_id) for item in items(found)) == sorted(known)


def test_committed_results_page_can_be_rated():
    assert len(rating_page.units(items(web_page.rows_of(files.read_text(ROOT / rating_page.RESULTS))), "pair")) >= 20


def test_what_is_missing_or_no_run_is_said_in_a_line(tmp_path):
    with pytest.raises(UserError, match=r"reports/index\.html: .*data/rollouts/rollouts\.jsonl"):
        rating_page.run("pair", 20, root=tmp_path)
    files.write_text(tmp_path / rating_page.RESULTS, "<p>something else</p>")
    with pytest.raises(UserError, match=r"reports/index\.html: .*results page"):
        rating_page.run("pair", 20, root=tmp_path)
    files.write_text(
        tmp_path / rating_page.RESULTS, '<script type="application/json" id="data">{"prompts": [{}]}</script>'
    )
    with pytest.raises(UserError, match=r"reports/index\.html: .*'\w+'"):
        rating_page.run("pair", 20, root=tmp_path)
    write_run(tmp_path, [{"model": "tuned", "seed": 23}])
    with pytest.raises(UserError, match=r"data/rollouts/rollouts\.jsonl: "):
        rating_page.run("pair", 20, root=tmp_path)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [(["--number", "0"], r"--number: .*\b0\b"), (["--output", "."], r"--output: .*folder")],
)
def test_mistaken_options_are_refused(monkeypatch, arguments, message):
    monkeypatch.setattr("sys.argv", ["rating_page", *arguments])
    with pytest.raises(UserError, match=message):
        rating_page.main()


def test_names_are_taken_by_who_rated_these_texts_in_this_form(tmp_path):
    rated = rating_page.units(items(made_up_rows(prompts=2)), "single")
    known = {"kind": "person", "right": None, "choice": None, "sense": 2, "empathy": 3}
    here = ratings.Rating(rater="Ann", form="single", left=rated[0].answers[0].hash, **known)
    elsewhere = ratings.Rating(rater="Ben", form="single", left=ratings.text_hash("a", "b"), **known)
    ratings.write(tmp_path / "both.csv", [here, elsewhere])
    assert rating_page.taken_names(rated, "single", tmp_path) == {"Ann"}
    assert rating_page.taken_names(rated, "pair", tmp_path) == set()


# --- In a browser.


@pytest.fixture(scope="module")
def chromium():
    if browser.executable() is None:
        pytest.skip("no Chromium is found; `make browser` brings it")
    with browser.page() as tab:
        yield tab


class Rater:
    """Who rates in a tab: opens the page, presses keys, looks and exports."""

    def __init__(self, tab, path, size=browser.DESKTOP):
        self.tab, self.path, self.size = tab, path, size
        tab.complaints.clear()
        tab.requests.clear()
        self.load()

    def load(self):
        time.sleep(0.2)  # on a busy machine the browser is slow to pass on what a page stored before it is read again
        self.tab.open(self.path, self.size)

    def begin(self, name):
        self.tab.run("document.getElementById('name').value = ''; document.getElementById('name').focus()")
        self.tab.write(name)
        self.tab.press("Enter")
        return self

    def press(self, *keys):
        for key in keys:
            self.tab.press(key)

    def click(self, identifier):
        self.tab.run(f"document.getElementById({identifier!r}).click()")

    def text(self, selector):
        return self.tab.run(f"document.querySelector({selector!r})?.textContent")

    def shown(self):
        """Return message and answers, from left to right."""
        return (
            self.text("#message"),
            self.tab.run("[...document.querySelectorAll('.answer')].map((a) => a.textContent)"),
        )

    def hashes(self):
        message, answers = self.shown()
        return [ratings.text_hash(message, answer) for answer in answers]

    def place(self):
        return self.text("#rate:not([hidden]) #place")

    def round(self, number):
        """Return what is shown in a round, going through it without rating."""
        skip = "document.dispatchEvent(new KeyboardEvent('keydown', {key: 's'}))"
        look = "[document.getElementById('message'), ...document.querySelectorAll('.answer')].map((text) => text.textContent)"
        return self.tab.run(f"Array.from({{length: {number}}}, () => {{ const seen = {look}; {skip}; return seen; }})")

    def export(self, folder):
        """Return the file that the page saves."""
        self.tab.save_downloads(folder)
        before = set(folder.iterdir())
        self.click("export")
        for _ in range(200):
            if found := [
                path for path in set(folder.iterdir()) - before if path.suffix == ".csv" and path.stat().st_size
            ]:
                return found[0]
            time.sleep(0.05)
        raise AssertionError("nothing was saved")


@pytest.fixture
def opened(chromium, tmp_path):
    """Return a function that opens a page of a form as a rater, in a browser that kept nothing."""

    def open_page(form="pair", number=20, size=browser.DESKTOP, rows=None, **how):
        path = tmp_path / f"{form}.html"
        files.write_text(path, page_of(rows or made_up_rows(text=f"{MARKUP}{WIDE} "), form, number, **how))
        chromium.open(path, size)
        chromium.run("localStorage.clear(); sessionStorage.clear()")
        return Rater(chromium, path, size)

    return open_page


@SCREENS
def test_ten_pairs_rated_by_keyboard_are_exported_as_they_were_chosen(opened, tmp_path, size):
    rater, expected = opened(size=size).begin("Ann Lee"), []
    keys = {"left": "ArrowLeft", "right": "ArrowRight", "both": "b", "neither": "n"}
    for k, choice in enumerate(
        ["left", "right", "both", "neither", "left", "left", "right", "neither", "both", "right"]
    ):
        assert rater.place() == f"Pair {k + 1} of 20"
        expected.append((*rater.hashes(), choice))
        rater.press(keys[choice])
        if k == 4:
            rater.load()
    rater.click("stop")
    path = rater.export(tmp_path)
    assert path.name == "Ann-Lee-pairs.csv"
    found = ratings.read(path)
    assert [(rating.left, rating.right, rating.choice) for rating in found] == expected
    assert {(rating.rater, rating.kind, rating.form) for rating in found} == {("Ann Lee", "person", "pair")}
    assert len({frozenset((rating.left, rating.right)) for rating in found}) == 10
    # As this package would write it, to the byte.
    ratings.write(tmp_path / "again.csv", found)
    assert path.read_bytes() == (tmp_path / "again.csv").read_bytes()
    assert rater.tab.complaints == []
    assert {request.split(":")[0] for request in rater.tab.requests} <= {"file", "data", "blob"}
    assert rater.tab.run("document.title") == "Rate answers to messages"


@SCREENS
def test_ten_answers_marked_by_keyboard_are_exported_as_they_were_marked(opened, tmp_path, size):
    rater, expected = opened("single", size=size).begin("Ann"), []
    for k, (sense, empathy) in enumerate(itertools.islice(itertools.product((0, 1, 2), (1, 2, 3, 4, 5)), 2, 12)):
        assert rater.place() == f"Answer {k + 1} of 20"
        expected.append((*rater.hashes(), sense, empathy))
        rater.press(str(sense))
        if k == 4:
            rater.load()  # with half of the marks
            assert rater.place() == "Answer 5 of 20"
            rater.press(str(sense))
        rater.press(str(empathy))
    rater.press("2")  # half of the eleventh, which is not exported
    rater.click("stop")
    found = ratings.read(rater.export(tmp_path))
    assert [(rating.left, rating.sense, rating.empathy) for rating in found] == expected
    assert {(rating.kind, rating.form) for rating in found} == {("person", "single")}
    assert rater.tab.complaints == []


def test_the_next_analysis_counts_what_was_exported(opened, tmp_path, settings):
    rows = made_up_rows(text=MARKUP)
    tuned = {item.answer for item in items(rows) if item.policy == "tuned"}
    write_run(tmp_path, rows)
    (tmp_path / ratings.FOLDER).mkdir(parents=True)
    for form in ("pair", "single"):
        rater = opened(form, rows=rows).begin("Ann")
        for k in range(10):
            # The tuned policy's answer is taken in seven of ten pairs, and makes sense.
            left, *_ = rater.shown()[1]
            sensible = (left in tuned) == (k < 7)
            rater.press(
                *(
                    ["ArrowLeft" if sensible else "ArrowRight"]
                    if form == "pair"
                    else ["2" if left in tuned else "0", "3"]
                )
            )
        rater.click("stop")
        path = rater.export(tmp_path)
        path.rename(tmp_path / ratings.FOLDER / path.name)
    analyse_ratings.run(settings.analyse_rewards.model_copy(update={"n_resamples": 200}), tmp_path)
    found = files.read_json(tmp_path / analyse_ratings.RESULT)
    assert [(file["file"], file["ratings"], file["fitting"]) for file in found["files"]] == [
        ("Ann-pairs.csv", 10, 10),
        ("Ann-single.csv", 10, 10),
    ]
    assert found["raters"] == [{"rater": "Ann", "kind": "person", "singles": 10, "pairs": 10}]
    pairs = found["by_kind"]["person"]["pairs"]
    assert (pairs["wins"], pairs["losses"]) == (7, 3)


@SCREENS
@pytest.mark.parametrize("form", ["pair", "single"])
def test_texts_are_shown_literally_and_nothing_is_wider_than_the_screen(opened, form, size):
    rows = made_up_rows(text=f"{MARKUP}{WIDE} ")
    rater = opened(form, rows=rows, size=size)
    fits = "document.documentElement.scrollWidth <= document.documentElement.clientWidth"
    assert rater.tab.run(fits)
    rater.begin("Ann")
    message, answers = rater.shown()
    assert message in {row["prompt"] for row in rows}
    assert set(answers) < {row["answer"] for row in rows}
    assert rater.tab.run("document.querySelectorAll('img, #rate script').length") == 0
    rater.tab.run("document.querySelectorAll('details').forEach((fold) => { fold.open = true; })")
    assert rater.tab.run(fits)
    rater.press(*(["b"] if form == "pair" else ["2", "5"]))
    rater.click("stop")
    rater.tab.run("document.querySelectorAll('details').forEach((fold) => { fold.open = true; })")
    assert rater.tab.run(fits)
    assert rater.tab.run("document.title") == "Rate answers to messages"


def test_on_a_phone_the_choices_are_in_reach_of_a_thumb_however_long_the_texts(opened):
    rater = opened(size=browser.PHONE, rows=made_up_rows(text="Many words. " * 100)).begin("Ann")
    boxes = rater.tab.run(
        "[...document.querySelectorAll('.choices button')].map((b) => b.getBoundingClientRect())"
        ".map((box) => [box.top, box.bottom, box.height, box.width])"
    )
    assert all(0 < top < bottom <= browser.PHONE[1] for top, bottom, _, _ in boxes)
    assert min(size for _, _, *sizes in boxes for size in sizes) >= 44
    rater.tab.tap("[data-value=right]")
    assert rater.place() == "Pair 2 of 20"
    assert rater.text("#said") == "Kept: lower."


def test_order_and_sides_are_drawn_from_the_name_alone(opened):
    rounds = {}
    for name in ("Ann", "Ben", "ann"):
        rater = opened()  # in a browser that kept nothing
        rounds[name] = rater.begin(name).round(20)
    assert rounds["ann"] == rounds["Ann"] != rounds["Ben"]
    units = {name: {frozenset(item) for item in seen} for name, seen in rounds.items()}
    assert len(units["Ann"]) == 20
    assert units["Ann"] != units["Ben"]
    # Five are the same for all, and 20 of 30 overlap in chance too.
    shared = {
        frozenset((unit["message"], *(a["text"] for a in unit["answers"])))
        for unit in data_of(rater.path.read_text())["units"][:5]
    }
    assert shared <= units["Ann"] & units["Ben"]
    assert {tuple(item) for item in rounds["Ann"] if frozenset(item) in shared} != {
        tuple(item) for item in rounds["Ben"] if frozenset(item) in shared
    }


def test_sides_are_even_over_raters(opened):
    rows = made_up_rows()
    start = {item.answer for item in items(rows) if item.policy == "warm_start"}
    left = 0
    for name in "ABCDEFGHIJ":
        left += sum(item[1] in start for item in opened(rows=rows).begin(name).round(20))
    assert 75 < left < 125  # of 200: a fair coin is out of it once in 2,500 times


def test_answers_to_one_message_are_both_rated_and_never_one_after_the_other(opened):
    for name in "ABCDEFGH":
        seen = opened("single", number=6).begin(name).round(6)
        messages = [message for message, _ in seen]
        assert sorted(map(messages.count, set(messages))) == [2, 2, 2]
        assert all(one != other for one, other in itertools.pairwise(messages))


def test_back_shows_the_choice_and_takes_another(opened, tmp_path):
    rater = opened().begin("Ann")
    first = rater.hashes()
    rater.press("ArrowLeft", "b", "Backspace", "Backspace")
    assert rater.hashes() == first
    assert rater.tab.run("[...document.querySelectorAll('[aria-pressed=true]')].map((b) => b.dataset.value)") == [
        "left"
    ]
    assert rater.text("#skip-label") == "Next"
    rater.press("Backspace", "n")  # there is nothing before the first
    assert rater.place() == "Pair 2 of 20"
    rater.click("stop")
    assert [rating.choice for rating in ratings.read(rater.export(tmp_path))] == ["neither", "both"]
    rater.click("return")
    assert rater.place() == "Pair 2 of 20"


def test_a_mark_that_is_changed_keeps_the_other(opened, tmp_path):
    rater = opened("single").begin("Ann")
    rater.press("2", "4", "Backspace", "1")
    assert rater.place() == "Answer 1 of 20"
    rater.press("s")
    rater.click("stop")
    (rating,) = ratings.read(rater.export(tmp_path))
    assert (rating.sense, rating.empathy) == (1, 4)


def test_digits_beyond_the_scale_and_other_keys_do_nothing(opened):
    rater = opened("single").begin("Ann")
    rater.press("3", "5", "x", "b", "ArrowLeft")
    assert rater.tab.run("document.querySelectorAll('[aria-pressed=true]').length") == 0
    rater.press("0", "0")
    assert rater.place() == "Answer 1 of 20"
    assert rater.tab.run("[...document.querySelectorAll('[aria-pressed=true]')].map((b) => b.dataset.mark)") == [
        "sense"
    ]


def test_a_held_key_a_double_click_and_a_shortcut_of_the_browser_rate_nothing(opened):
    rater = opened().begin("Ann")
    for event in (
        "KeyboardEvent('keydown', {key: 'b', repeat: true})",
        "KeyboardEvent('keydown', {key: 'b', ctrlKey: true})",
    ):
        rater.tab.run(f"document.dispatchEvent(new {event})")
    assert rater.place() == "Pair 1 of 20"
    for detail in (1, 2):
        rater.tab.run(
            f"document.querySelector('[data-value=both]').dispatchEvent(new MouseEvent('click', {{detail: {detail}}}))"
        )
    assert rater.place() == "Pair 2 of 20"
    rater.click("keys")
    rater.press("b")
    assert rater.place() == "Pair 2 of 20"


def test_who_skips_and_ends_a_round_can_go_on(opened):
    rater = opened(number=3, rows=made_up_rows(prompts=5)).begin("Ann")
    rater.press("b", "s", "b")
    assert rater.text("#done-title") == "You have rated 2 pairs"
    assert rater.text("#go-on") == "Go on with the 1 still open"
    rater.load()
    assert rater.text("#done-title") == "You have rated 2 pairs"
    rater.click("go-on")
    assert rater.place() == "Pair 2 of 3"
    rater.press("b", "s")
    assert rater.text("#go-on") == "Rate 2 pairs more"
    rater.click("go-on")
    assert rater.place() == "Pair 4 of 5"
    rater.press("n", "n")
    assert rater.text("#done-title") == "You have rated 5 pairs"
    assert rater.tab.run("document.getElementById('go-on').hidden")
    rater.press("Backspace")
    assert rater.place() == "Pair 5 of 5"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("", "Enter a name first"),
        ("   ", "Enter a name first"),
        ("=1+1", "A name begins with a letter"),
        ("a,b", "A name begins with a letter"),
        ("x" * 41, "A name begins with a letter"),
        ("BEN ", "There are ratings by BEN of these texts in data/ratings already"),
    ],
)
def test_names_that_would_not_do_are_refused(opened, name, message):
    rater = opened(taken=["Ben"]).begin(name)
    assert rater.text("#name-error").startswith(message)
    assert rater.place() is None
    assert rater.tab.run("document.activeElement.id") == "name"


def test_a_name_that_rated_here_is_asked_whether_it_is_the_same_person(opened):
    rater = opened().begin("Ann")
    rater.press("b")
    rater.click("leave")
    rater.load()
    rater.begin(" ANN")
    assert rater.text("#name-error").startswith("Ann has rated in this browser")
    rater.tab.run("document.querySelector('#kept-list button').click()")
    assert rater.place() == "Pair 2 of 20"


def test_ratings_are_kept_apart_by_name_and_can_be_deleted(opened):
    rater = opened().begin("Ann")
    rater.press("b", "b")
    rater.click("leave")
    rater.begin("Zoë")
    assert rater.text("#rated") == "0 rated"
    rater.press("n")
    rater.click("leave")
    buttons = "[...document.querySelectorAll('#kept-list button')]"
    assert rater.tab.run(f"{buttons}.map((b) => b.textContent)") == [
        "Go on as Ann (2 pairs rated)", "Delete", "Go on as Zoë (1 pair rated)", "Delete",
    ]  # fmt: skip
    rater.tab.run(f"{buttons}[1].click()")
    assert rater.tab.run(f"{buttons}[1].textContent").startswith("Really delete 2 pairs rated?")
    rater.tab.run(f"{buttons}[1].click()")
    assert rater.tab.run(f"{buttons}.length") == 2
    assert not rater.tab.run("Object.keys(localStorage).some((key) => key.endsWith(' ann'))")


def test_another_number_of_items_keeps_what_was_rated(opened):
    rater = opened(number=20).begin("Ann")
    rater.press("b", "b", "b")
    files.write_text(rater.path, page_of(made_up_rows(text=f"{MARKUP}{WIDE} "), number=2))
    rater.load()
    # Three are rated: the second round of two goes on with what is not.
    assert rater.place().endswith(" of 4")
    assert rater.tab.run("document.querySelectorAll('[aria-pressed=true]').length") == 0
    rater.click("stop")
    assert rater.text("#done-title") == "You have rated 3 pairs"


def test_what_a_browser_keeps_can_be_broken(opened):
    rater = opened().begin("Ann")
    rater.press("b")
    rater.tab.run("for (const key of Object.keys(localStorage)) localStorage.setItem(key, '{\"name\": 3')")
    rater.load()
    assert rater.tab.run("!document.getElementById('start').hidden")
    rater.begin("Ann").press("b")
    assert rater.place() == "Pair 2 of 20"


def test_where_the_browser_keeps_nothing_the_page_says_so_and_works(opened, tmp_path):
    rater = opened()
    refuse = "for (const name of ['localStorage', 'sessionStorage']) Object.defineProperty(window, name, {get() { throw new Error(); }});"
    script = rater.tab.ask("Page.addScriptToEvaluateOnNewDocument", source=refuse)["identifier"]
    try:
        rater.load()
        rater.begin("Ann")
        assert not rater.tab.run("document.getElementById('unkept').hidden")
        rater.press("b", "n")
        rater.click("stop")
        assert [rating.choice for rating in ratings.read(rater.export(tmp_path))] == ["both", "neither"]
    finally:
        rater.tab.ask("Page.removeScriptToEvaluateOnNewDocument", identifier=script)
    # It does not let the ratings go without a question.
    rater.load()
    assert [complaint for complaint in rater.tab.complaints if "dialog: beforeunload" in complaint]


def test_a_screen_reader_is_led_from_item_to_item(opened):
    rater = opened().begin("Ann")
    assert rater.tab.run("document.activeElement.id") == "place"
    rater.press("b")
    assert rater.tab.run("document.activeElement.textContent") == "Pair 2 of 20"
    assert rater.text("[role=status]#said") == "Kept: both."
    reached = []
    for _ in range(12):
        rater.press("Tab")
        reached.append(rater.tab.run("document.activeElement.dataset.value || document.activeElement.id"))
    assert [*"left right both neither".split(), "back", "skip", "stop", "keys"] == reached[:8]
    tree = rater.tab.ask("Accessibility.getFullAXTree")["nodes"]
    named = {
        (node["role"]["value"], node["name"]["value"]) for node in tree if node.get("name") and not node["ignored"]
    }
    assert {
        ("group", "Which answer is better?"),
        ("button", "Left"),
        ("button", "Neither"),
        ("heading", "Left answer"),
    } <= named
    assert ("heading", "Upper answer") not in named
    assert ("progressbar", "1 rated") in named


def test_marks_stand_in_groups_that_take_the_focus_in_turn(opened):
    rater = opened("single").begin("Ann")
    assert rater.tab.run("document.querySelector('.group.active').id") == "group-sense"
    rater.press("2")
    assert (
        rater.tab.run("[document.activeElement.id, document.querySelector('.group.active').id]")
        == ["group-empathy"] * 2
    )
    marks = "[...document.querySelectorAll('#group-%s button')].map((b) => Number(b.dataset.value))"
    assert rater.tab.run(marks % "sense") == list(ratings.SENSE)
    assert rater.tab.run(marks % "empathy") == list(ratings.EMPATHY)
