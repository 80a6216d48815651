"""From a text file's bytes to its text."""

from __future__ import annotations

import pytest

from assistant_api.knowledge import media, parsing
from assistant_api.knowledge.encoding import UnknownEncodingError, decode
from assistant_api.knowledge.parsing import ParsingError, parse


@pytest.mark.parametrize(
    ("text", "encoding"),
    [
        ("Die Rückgabe ist möglich. Größe und Maße gemäß Übersicht, 5 € Gebühr.", "cp1252"),
        ("Grüße", "cp1252"),
        ("La garantie a été prolongée jusqu’à l’été.", "cp1252"),
        ("سياسة الإرجاع: يمكنك إعادة المنتج خلال ثلاثين يوما من تاريخ الشراء.", "cp1256"),
        ("مرحبا بالعالم", "cp1256"),
        ("سياسة الإرجاع: يمكنك إعادة المنتج خلال ثلاثين يوما", "iso8859-6"),
        ("Возврат товара возможен в течение тридцати дней.", "cp1251"),
        ("Возврат товара возможен в течение тридцати дней.", "koi8-r"),
        ("Zażółć gęślą jaźń. Zwrot towaru jest możliwy w ciągu trzydziestu dni.", "cp1250"),
        ("Η επιστροφή του προϊόντος είναι δυνατή εντός τριάντα ημερών.", "cp1253"),
        ("מדיניות החזרה: ניתן להחזיר את המוצר תוך שלושים יום.", "cp1255"),
        ("İade süresi otuz gündür. Ürünü kargo ile gönderebilirsiniz, ağırlık şartı yoktur.", "cp1254"),
        ("返品は三十日以内に可能です。商品を送り返してください。", "cp932"),
        ("返品は三十日以内に可能です。", "euc_jp"),
        ("退货政策：三十天内可以退货。请将产品寄回。", "gb18030"),
        ("退貨政策：三十天內可以退貨。請將產品寄回。", "big5"),
        ("반품은 삼십일 이내에 가능합니다.", "cp949"),
        ("Rückgabe, إرجاع, 返品", "utf-8"),
        ("Rückgabe, إرجاع, 返品", "utf-16"),
        ("Rückgabe ohne Marke, 30 Tage", "utf-16-le"),
        ("إعادة المنتج خلال 30 يوما", "utf-16-be"),
        ("Rückgabe, إرجاع, 返品", "utf-32"),
    ],
)
def test_a_text_is_read_in_the_encoding_it_was_written_in(text: str, encoding: str) -> None:
    """Old files say nothing of their encoding; what people wrote is found again in all of these."""
    assert decode(text.encode(encoding)) == text


@pytest.mark.parametrize("damage", [b"\xff", b"\xc3", b"\x80"])
def test_a_damaged_byte_does_not_change_the_encoding_of_the_rest(damage: bytes) -> None:
    """One bad byte in the middle of UTF-8 is one bad character."""
    assert decode("Rückgabe ".encode() + damage + " für Größen".encode()) == "Rückgabe \ufffd für Größen"


def test_a_text_that_was_cut_within_a_character_is_utf8() -> None:
    """Log files are cut anywhere."""
    assert decode("Grüße".encode()[:-2]) == "Grü\ufffd"


def test_an_encoding_that_nobody_can_tell_is_said() -> None:
    """A wrong guess would fill the knowledge base with noise and call it ready."""
    noise = bytes(range(128, 256)) * 8
    with pytest.raises(UnknownEncodingError):
        decode(noise)
    with pytest.raises(ParsingError) as caught:
        list(parse(media.TEXT, noise))
    assert caught.value.code == parsing.ENCODING_UNKNOWN
    assert "UTF-8" in caught.value.message
