"""Passwords travel to Postgres as verifiers."""

import base64

from assistant_operator.adapters.scram import verifier


def test_the_verifier_is_that_of_the_standard():
    """The example of RFC 7677 (user `user`, password `pencil`) comes out as its keys require."""
    salt = base64.b64decode("W22ZaJ0SNY7soEsUEjb6gQ==")
    text = verifier("pencil", salt)
    assert text == (
        "SCRAM-SHA-256$4096:W22ZaJ0SNY7soEsUEjb6gQ==$"
        "WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=:wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU="
    )


def test_each_verifier_has_a_salt_of_its_own():
    """The same password twice gives two verifiers."""
    assert verifier("a") != verifier("a")
