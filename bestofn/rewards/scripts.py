"""Scripts that are written without spaces: a character, with its combining marks, is a word."""

UNSPACED_LETTERS = (
    "\u0e01-\u0e30\u0e32\u0e33\u0e40-\u0e46"  # Thai letters
    "\u3041-\u3096\u309d-\u309f\u30a1-\u30fa\u30fc-\u30ff\u31f0-\u31ff"  # kana
    "\u3005-\u3007\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"  # Han
)
"""Ranges of letters, for a character class."""

MARKS = (
    "\u0e31\u0e34-\u0e3a\u0e47-\u0e4e"  # Thai vowel signs and tone marks
    "\u3099\u309a\ufe00-\ufe0f\U000e0100-\U000e01ef"  # kana voicing, variant selectors
)
UNSPACED = f"[{UNSPACED_LETTERS}][{MARKS}]*"
"""A pattern of one word."""
