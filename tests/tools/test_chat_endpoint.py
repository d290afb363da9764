"""Each way in which an endpoint fails, against a server of this test that fails so."""

import datetime
import email.utils
import gzip

import pytest

import chat_server
from chat_server import Answer, error, reply
from gpro_empathy.files import UserError
from gpro_empathy.tools import chat_endpoint, server_answer
from gpro_empathy.tools.chat_endpoint import Endpoint, UnansweredError
from gpro_empathy.tools.request_budget import Budget, LimitReachedError

KEY = 'sk-secret/0123"456789'
ASKED = [{"role": "user", "content": "How are you?"}]


@pytest.fixture
def server():
    with chat_server.running(lambda _: reply("Fine.")) as running:
        yield running


@pytest.fixture
def endpoint(server):
    """Return what makes an endpoint of the server; it notes its waits in place of waiting."""

    def make(base_url=None, key=None, budget=None, timeout=30.0, max_tokens=50):
        made = Endpoint(
            base_url or server.url, "a-judge", key, budget or Budget(100), timeout=timeout, max_tokens=max_tokens,
            note=lambda line: made.notes.append(line), sleep=lambda seconds: made.waits.append(seconds),
        )  # fmt: skip
        made.waits, made.notes = [], []
        return made

    return make


def content(body):
    return body["choices"][0]["message"]["content"]


def test_request_is_that_of_the_protocol(server, endpoint):
    assert content(endpoint(key=KEY).ask(ASKED)) == "Fine."
    assert server.paths == ["/v1/chat/completions"]
    assert server.bodies == [{"model": "a-judge", "messages": ASKED, "temperature": 0, "max_tokens": 50}]
    assert server.headers[0]["Authorization"] == f"Bearer {KEY}"


def test_without_a_key_none_is_sent(server, endpoint):
    endpoint(key=" ").ask(ASKED)
    assert "Authorization" not in server.headers[0]


@pytest.mark.parametrize("ending", ["", "/", "/chat/completions", "/chat/completions/"])
def test_address_may_end_in_the_usual_ways(server, endpoint, ending):
    endpoint(f"{server.url}{ending}").ask(ASKED)
    assert server.paths == ["/v1/chat/completions"]


@pytest.mark.parametrize(
    "failing",
    [error(500, "oops"), error(503, "busy"), error(429, "slow down"), error(408, "late"), Answer(None), Answer(b"<html>"),
     Answer({"choices": []}), Answer({"choices": [{"message": None}]}), Answer({"error": {"message": "upstream"}}),
     Answer(b"[" * 100_000), Answer(b"\xff", headers={"Content-Encoding": "gzip"})],
)  # fmt: skip
def test_passing_failure_is_asked_again_after_growing_waits(server, endpoint, failing):
    server.script = [failing] * 3
    made = endpoint()
    assert content(made.ask(ASKED)) == "Fine."
    assert made.waits == [1, 2, 5]
    assert len(server.bodies) == made.budget.requests == 4
    assert made.notes[0].endswith("asking again in 1 s")


def test_server_that_keeps_failing_is_given_up_with_its_words(server, endpoint):
    server.script = [error(500, "out of\n\x1b[31m cards")] * 6
    made = endpoint()
    with pytest.raises(UnansweredError, match=r"\b500: out of \N{REPLACEMENT CHARACTER}\[31m cards$"):
        made.ask(ASKED)
    assert made.waits == list(chat_endpoint.WAITS)


def test_server_that_asks_to_wait_gets_that_wait(server, endpoint):
    date = datetime.datetime.now(datetime.UTC) + datetime.timedelta(seconds=90)
    asked_for = ["7", "0.5", email.utils.format_datetime(date, usegmt=True), "soon", "nan"]
    server.script = [error(429, "slow down", retry_after=value) for value in asked_for]
    made = endpoint()
    made.ask(ASKED)
    assert made.waits[:2] == [7, 2]
    assert made.waits[2] == pytest.approx(89, abs=3)
    assert made.waits[3:] == [15, 40]


def test_server_that_asks_to_wait_for_hours_is_left_alone(server, endpoint):
    server.script = [error(429, "daily limit", retry_after="7200")]
    with pytest.raises(UserError, match=r"429: daily limit\b.*\b120 minutes"):
        endpoint().ask(ASKED)


@pytest.mark.parametrize(
    ("answer", "way_out"),
    [
        (error(401, "bad key"), "401: bad key; .*OPENAI_API_KEY"),
        (error(404, "no model"), "404: no model; .*--model"),
        (error(400, "temperature must be 1"), "400: temperature must be 1$"),
        (error(429, "pay", "insufficient_quota"), "429: pay; .*account"),
        (Answer({"object": "error", "message": "too long"}, 400), "400: too long$"),
        (Answer({"detail": [{"msg": "field required"}]}, 422), "422: .*field required"),
        (Answer(b"", 400), "400: "),
        (
            Answer(b"", 302, {"Location": "https://elsewhere.example/v1"}),
            r"https://elsewhere\.example/v1",
        ),
    ],
)
def test_lasting_failure_is_asked_once_and_says_the_way_out(server, endpoint, answer, way_out):
    server.script = [answer]
    made = endpoint()
    with pytest.raises(UnansweredError, match=way_out):
        made.ask(ASKED)
    assert len(server.bodies) == 1
    assert made.waits == []


def test_refusal_of_a_filter_is_a_reply(server, endpoint):
    server.script = [error(400, "The prompt was filtered", "content_filter")]
    assert endpoint().ask(ASKED)["error"]["message"] == "The prompt was filtered"


def test_limit_of_tokens_has_its_other_name_where_the_server_wants_it(server, endpoint):
    server.script = [error(400, "Unsupported parameter: 'max_tokens'. Use 'max_completion_tokens' instead.")]
    made = endpoint()
    for _ in range(2):
        assert content(made.ask(ASKED)) == "Fine."
    assert ["max_tokens" in body for body in server.bodies] == [True, False, False]
    assert server.bodies[2]["max_completion_tokens"] == 50
    assert made.waits == []


def test_server_that_is_not_there_is_told_at_once(endpoint):
    made = endpoint("http://127.0.0.1:9/v1")
    with pytest.raises(UserError, match=r"^http://127\.0\.0\.1:9/v1/chat/completions: .*start"):
        made.ask(ASKED)
    assert made.waits == []


def test_server_that_goes_away_is_waited_for():
    with chat_server.running(lambda _: reply("Fine.")) as first:
        waits = []
        made = Endpoint(
            first.url, "m", None, Budget(9), timeout=30, max_tokens=5, note=lambda _: None, sleep=waits.append
        )
        made.ask(ASKED)
    with pytest.raises(UnansweredError):
        made.ask(ASKED)
    assert waits == list(chat_endpoint.WAITS)


@pytest.mark.parametrize("slow", [{"delay": 20}, {"pause": 0.2}])
def test_slow_answer_is_given_up_and_asked_for_again(server, endpoint, slow):
    server.script = [Answer(reply("Late.").body, **slow)]
    made = endpoint(timeout=1)
    assert content(made.ask(ASKED)) == "Fine."
    assert made.notes[0] == "no answer within 1 s; asking again in 1 s"


def test_answer_that_never_ends_is_given_up(server, endpoint, monkeypatch):
    monkeypatch.setattr(chat_endpoint, "LARGEST_ANSWER", 1000)
    server.script = [Answer(gzip.compress(b" " * 100_000), headers={"Content-Encoding": "gzip"})]
    made = endpoint()
    assert content(made.ask(ASKED)) == "Fine."
    assert made.notes[0].startswith("an answer of more than 1000 bytes")


# The key


def test_key_stands_in_no_reply_and_no_message(server, endpoint):
    slashed = KEY.replace('"', '\\"').replace("/", "\\/")
    server.script = [
        reply(f"Your key is {KEY}."),
        Answer(b'{"choices": [{"message": {"content": "' + slashed.encode() + b'"}}]}'),
        error(500, f"Bearer {KEY} is overloaded"),
        error(401, f"bad key {KEY}"),
        Answer(f"no JSON: {KEY}".encode(), 400),
        Answer(b"", 307, {"Location": f"http://x.example/?k={KEY}"}),
    ]
    made = endpoint(key=KEY)
    assert content(made.ask(ASKED)) == "Your key is [key]."
    assert content(made.ask(ASKED)) == "[key]"
    for _ in range(3):
        with pytest.raises(UnansweredError) as raised:
            made.ask(ASKED)
        assert "secret" not in str(raised.value)
        assert "[key]" in str(raised.value)
    assert made.notes == ["the server answers 500: Bearer [key] is overloaded; asking again in 1 s"]


def test_word_for_no_key_stays_in_replies(server, endpoint):
    server.script = [reply("EMPTY words")]
    assert content(endpoint(key="EMPTY").ask(ASKED)) == "EMPTY words"


@pytest.mark.parametrize("key", ["sk-one\ntwo", "sk-ü", "two words"])
def test_key_that_no_header_takes_is_refused_unseen(endpoint, key):
    with pytest.raises(UserError, match=r"OPENAI_API_KEY: .*character") as raised:
        endpoint(key=key)
    assert key not in str(raised.value)


def test_key_in_the_clear_is_warned_of(capsys):
    def make(url, key):
        notes = []
        Endpoint(url, "m", key, Budget(1), timeout=1, max_tokens=1, note=notes.append)
        return notes

    assert make("http://far.example/v1", KEY) == [
        "the key of OPENAI_API_KEY goes to far.example unencrypted; https, or no key, is safer"
    ]
    assert (
        make("https://far.example/v1", KEY)
        == make("http://localhost:1/v1", KEY)
        == make("http://far.example/v1", "EMPTY")
    )


# Limits


def test_requests_stay_within_their_limit_repeated_ones_too(server, endpoint):
    server.script = [error(500, "oops")]
    made = endpoint(budget=Budget(2))
    made.ask(ASKED)
    with pytest.raises(LimitReachedError, match=r"^--max-requests 2$"):
        made.ask(ASKED)
    assert len(server.bodies) == 2


def test_cost_is_that_of_the_tokens_that_the_server_counts(server, endpoint):
    made = endpoint(budget=Budget(9, prices=(2.0, 30.0)))
    for _ in range(3):
        made.ask(ASKED)
    assert (made.budget.sent, made.budget.received) == (300, 30)
    assert made.budget.cost == pytest.approx(3 * (100 * 2 + 10 * 30) / 1e6)
    assert made.budget.told() == ", cost 0.00"


@pytest.mark.parametrize("usage", [None, {"prompt_tokens": -1, "completion_tokens": 1}, {"prompt_tokens": "9"}, [], 5])
def test_request_that_no_server_counts_costs_its_most(server, endpoint, usage):
    answer = reply("Fine.")
    answer.body["usage"] = usage
    server.script = [answer]
    made = endpoint(budget=Budget(9, prices=(2.0, 30.0)))
    made.ask(ASKED)
    assert made.budget.cost == made.most(ASKED) > 30 * 50 / 1e6


def test_request_that_broke_off_is_paid_and_one_that_was_refused_is_not(server, endpoint):
    server.script = [error(500, "oops"), Answer(None), reply("Fine.", usage=(0, 0))]
    made = endpoint(budget=Budget(9, prices=(2.0, 30.0)))
    made.ask(ASKED)
    assert made.budget.cost == pytest.approx(made.most(ASKED))


def test_cost_stays_below_its_limit_whatever_the_next_request_takes(server, endpoint):
    server.judge = lambda _: reply("Fine.", usage=(0, 50))
    prices, each = (1000.0, 1000.0), 0.05
    most = endpoint(budget=Budget(1, prices=prices)).most(ASKED)
    made = endpoint(budget=Budget(99, cost=most + 2.5 * each, prices=prices))
    for _ in range(3):
        made.ask(ASKED)
    with pytest.raises(LimitReachedError, match=r"^--max-cost\b.*\b0\.15\b"):
        made.ask(ASKED)
    assert len(server.bodies) == 3


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"requests": -1}, r"^--max-requests: .*-1\b"),
        ({"requests": 1, "cost": float("nan"), "prices": (1, 1)}, r"^--max-cost: .*\bnan\b"),
        ({"requests": 1, "prices": (1, float("inf"))}, r"^--prices: .*\binf\b"),
        ({"requests": 1, "prices": (-2, 1)}, r"^--prices: .*-2\b"),
        ({"requests": 1, "cost": 1.0}, "^--max-cost .*--prices"),
    ],
)
def test_budget_refuses_what_is_no_limit(arguments, words):
    with pytest.raises(UserError, match=words):
        Budget(**arguments)


@pytest.mark.parametrize(
    "address",
    [
        "",
        "localhost:8000",
        "ftp://x/v1",
        "http://",
        "http://[::1",
        "https://me:secret@x.example/v1",
        "https://x/?key=secret",
    ],
)
def test_address_that_is_none_is_refused_without_quoting_it(endpoint, address):
    with pytest.raises(UserError, match=r"^--base-url: .*http://localhost:8000/v1") as raised:
        Endpoint(address, "m", None, Budget(1), timeout=1, max_tokens=1, note=print)
    assert "secret" not in str(raised.value)


@pytest.mark.parametrize("arguments", [{"timeout": 0}, {"timeout": float("nan")}, {"max_tokens": -5}])
def test_limits_of_a_request_are_above_0(endpoint, arguments):
    with pytest.raises(UserError, match=r"^--(timeout|max-tokens): .*\b0$"):
        endpoint(**arguments)


def test_retry_after_of_the_past_is_no_wait():
    assert server_answer.retry_after("Wed, 21 Oct 2015 07:28:00 GMT") == server_answer.retry_after("-3") == 0
