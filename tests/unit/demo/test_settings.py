"""Which model the environment chooses."""

import pytest

from assistant_demo.errors import DemoError
from assistant_demo.settings import MULTILINGUAL, STAND_IN, Model, ModelSettings

VARIABLES = ("OPENAI_API_KEY", *(f"DEMO_{name}" for name in ("MODEL_URL", "MODEL_KEY", "MODEL_NAME", "EMBEDDING_NAME")))
OWN = {"DEMO_MODEL_NAME": "llama", "DEMO_EMBEDDING_NAME": "nomic", "DEMO_EMBEDDING_DIMENSIONS": "768"}


@pytest.fixture
def chosen(monkeypatch: pytest.MonkeyPatch):
    """Return the model that an environment chooses."""

    def choose(**environment: str) -> Model:
        for name in (*VARIABLES, "DEMO_EMBEDDING_DIMENSIONS"):
            monkeypatch.delenv(name, raising=False)
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        return ModelSettings().model()

    return choose


def test_without_a_choice_the_stand_in_answers(chosen) -> None:
    """No key and no address, or empty ones: the offline stand-in, which needs neither."""
    assert chosen() == chosen(OPENAI_API_KEY="", DEMO_MODEL_URL="") == MULTILINGUAL
    assert "no language model" in str(STAND_IN)


def test_hashed_words_can_be_asked_for(chosen) -> None:
    """The stand-in embeds with a model that knows meaning, unless its own vectors are wanted."""
    assert chosen(DEMO_EMBEDDING_NAME="stand-in-embedding") == STAND_IN
    assert (MULTILINGUAL.embedding, MULTILINGUAL.chat, MULTILINGUAL.stand_in) == (
        "multilingual-e5-small",
        "stand-in",
        True,
    )


def test_a_key_for_openai_is_used(chosen) -> None:
    """With OPENAI_API_KEY the catalogue names OpenAI, and the key goes by reference, never in clear."""
    model = chosen(OPENAI_API_KEY="sk-secret")
    assert (model.provider, model.dimensions, model.key) == ("openai", 1536, "sk-secret")
    assert model.catalogue_entry() == {"url": "https://api.openai.com/v1", "keyRef": "openai"}
    assert "sk-secret" not in str(model)


def test_an_own_server_wins_and_gets_its_port_opened(chosen) -> None:
    """DEMO_MODEL_URL is used rather than OpenAI; no key is sent that was not given, nor `dimensions`."""
    model = chosen(OPENAI_API_KEY="sk", DEMO_MODEL_URL="http://192.0.2.7:11434/v1/", **OWN)
    assert (model.chat, model.port, model.dimensions) == ("llama", 11434, 768)
    assert model.catalogue_entry() == {"url": "http://192.0.2.7:11434/v1", "embeddingDimensions": False}


@pytest.mark.parametrize(
    ("environment", "told"),
    [
        ({"DEMO_MODEL_URL": "192.0.2.7:11434"}, "must look like"),
        ({"DEMO_MODEL_URL": "http://localhost:11434/v1", **OWN}, "the pod itself"),
        ({"DEMO_MODEL_URL": "http://192.0.2.7:11434/v1"}, "DEMO_EMBEDDING_DIMENSIONS"),
    ],
)
def test_a_choice_that_cannot_work_is_refused_with_the_next_step(chosen, environment, told) -> None:
    """An address that no pod could use, or a choice that is not complete, is told before anything is built."""
    with pytest.raises(DemoError, match=told):
        chosen(**environment)


def test_the_stand_in_has_a_price() -> None:
    """It is free of charge, and says so: under a budget a model without a price is refused."""
    assert MULTILINGUAL.catalogue_entry() == STAND_IN.catalogue_entry()
    assert STAND_IN.catalogue_entry()["models"] == {"*": {"inputPerMillion": "0", "outputPerMillion": "0"}}
