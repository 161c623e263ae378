"""What tokens look like, so that a pasted one is known and hidden.

OpenBao issues `s.` with 24 letters and digits, HashiCorp Vault `hvs.` with 91 that may be `-` and `_`; batch tokens
begin with `b.` or `hvb.`, recovery tokens with `r.` or `hvr.`. A namespace may follow, after another full stop.
"""

from __future__ import annotations

import re

_NAMESPACE = r"(?:\.[A-Za-z0-9]+)?"
_SERVICE = rf"(?:s\.[A-Za-z0-9]{{24,}}|hvs\.[A-Za-z0-9_-]{{24,}}){_NAMESPACE}"
_OTHERS = rf"(?:r\.[A-Za-z0-9]{{24,}}|hv[br]\.[A-Za-z0-9_-]{{24,}}|b\.[A-Za-z0-9_-]{{60,}}){_NAMESPACE}"
_JWT = r"eyJ[A-Za-z0-9_.-]{24,}"
_WRAPPING = re.compile(rf"{_SERVICE}|{_JWT}")
# In ordinary words a letter or digit precedes, as in `tests.` or `keys.`.
_ANY = re.compile(rf"(?<![A-Za-z0-9_])(?:{_SERVICE}|{_OTHERS}|{_JWT})")
HIDDEN = "[a token, not shown]"


def is_wrapping(text: str) -> bool:
    """Return whether the text can be a wrapping token.

    Those are service tokens, or a service token in a JWT.
    """
    return _WRAPPING.fullmatch(text) is not None


def without_tokens(text: str) -> str:
    """Return the text with a remark for each token in it.

    People paste tokens where a name is expected.
    """
    return _ANY.sub(HIDDEN, text)
