"""A configuration over several files is put together whole, or not at all."""

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from assistant_crds import parts
from assistant_crds.contracts import AssistantConfig, TenantConfig, TenantIdentity, UnavailableAssistant, seal


def assistant(name, instructions=""):
    return AssistantConfig(
        name=name,
        generation=1,
        display_name=name,
        description="",
        instructions=instructions,
        knowledge_bases=[],
        max_chunks=6,
        min_score=0.0,
        created=0,
    )


def config(*assistants):
    return seal(
        TenantConfig(
            tenant=TenantIdentity(namespace="acme", uid="u", key="t_1"),
            generation="",
            gateway_url="http://gateway",
            collection="C",
            api_keys=[],
            assistants=list(assistants),
            knowledge_bases=[],
        )
    )


def reader(files):
    by_name = {parts.file_name(number): content for number, content in enumerate(files[1:], 1)}

    def read(name):
        if name not in by_name:
            raise FileNotFoundError(2, "No such file")
        return by_name[name]

    return read


@settings(max_examples=50, deadline=None)
@given(
    st.lists(st.sampled_from([0, 10, 30_000, 32_768]), max_size=60),
    st.sampled_from(["a", "é", "漢", "\U0001f600", "\n"]),
)
def test_what_was_split_is_the_same_again(lengths, letter):
    """Whatever the sizes and the letters, no file passes the limit, and together they are what they were."""
    whole = config(*(assistant(f"a{number}", letter * length) for number, length in enumerate(lengths)))
    files = parts.split(whole)
    assert all(len(content) <= parts.MOST_BYTES for content in files)
    assert parts.join(files[0], reader(files)) == whole


def test_two_hundred_assistants_of_the_longest_instructions_fit():
    """200 assistants with 32 Ki characters of four bytes each are within what pods mount."""
    whole = config(*(assistant(f"assistant-{number:03}", "\U0001f600" * 32_768) for number in range(200)))
    files = parts.split(whole)
    assert max(map(len, files)) < 1_048_576
    assert parts.mounted(len(files) - 1) <= parts.MOST_PARTS
    assert len(parts.join(files[0], reader(files)).assistants) == 200


def test_files_of_two_generations_are_not_put_together():
    """While files are being written, or one is missing, there is no configuration rather than half of one."""
    old = parts.split(config(*(assistant(f"a{number}", "x" * 32_768) for number in range(80))))
    new = parts.split(config(*(assistant(f"a{number}", "y" * 32_768) for number in range(80))))
    assert len(old) == len(new) == 3
    with pytest.raises(parts.IncompleteError, match=r"part-2[.]json is of another generation"):
        parts.join(new[0], reader([new[0], new[1], old[2]]))
    with pytest.raises(parts.IncompleteError, match=r"part-1[.]json cannot be read"):
        parts.join(new[0], reader([]))


def test_what_is_said_of_assistants_that_cannot_be_asked_is_bounded():
    """However many of them there are, the first file keeps its size."""
    unavailable = [UnavailableAssistant(name=f"a{number}", reason="R", message="m" * 1000) for number in range(5000)]
    files = parts.split(msgspec.structs.replace(config(assistant("fine")), unavailable=unavailable))
    assert len(files[0]) < parts.MOST_BYTES
    assert 0 < len(parts.join(files[0], reader(files)).unavailable) < 5000
