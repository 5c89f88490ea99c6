"""How dead letters are listed for people."""

from rich.console import Console

from clipper_agents.cli.dead_letters import letters_table
from clipper_agents.dead_letters.reader import Letter
from clipper_topics.dead_letter import DeadLetter

MESSAGE = (
    "no decision about query '3-0123456789abcdef0123456789abcdef' in partition 3: send the feedback with the query's "
    "key, at most 5 s before it and the feedback horizon after it"
)


def letter(said: DeadLetter | None) -> Letter:
    return Letter(position=41, at_ms=1_700_000_000_000, key=None, value=None, headers=(), said=said)


def columns_of(*letters: Letter) -> list[str]:
    """The text of each column as a terminal of eighty columns shows it."""
    console = Console(width=80, force_terminal=False, color_system=None)
    with console.capture() as said:
        console.print(letters_table(letters, "clipper"))
    heading, *lines = said.get().splitlines()
    starts = [heading.index(name) for name in heading.split()]
    ends = [*starts[1:], 80]
    return [" ".join(line[at:end].strip() for line in lines).strip() for at, end in zip(starts, ends, strict=True)]


def test_a_letter_keeps_its_record_and_its_whole_message_at_eighty_columns() -> None:
    said = DeadLetter(
        exception="clipper_agents.feedback.OrphanFeedback", message=MESSAGE, topic="clipper.feedback", partition=3,
        offset=123_456,
    )  # fmt: skip
    *head, message = columns_of(letter(said))
    assert head == ["41", "2023-11-14 22:13:20", "feedback[3]@123456"]
    assert message.replace(" ", "") == f"OrphanFeedback:{MESSAGE}".replace(" ", "")


def test_a_record_that_is_no_dead_letter_is_listed_by_its_position() -> None:
    assert columns_of(letter(None)) == ["41", "2023-11-14 22:13:20", "", ""]
