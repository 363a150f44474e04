"""Which pages of browsers may send to an HTTP receiver (the Collector's `cors` keys)."""

from typing import Self

from pydantic import model_validator

from schemas.config.section import Count, Section, Texts


class CorsSettings(Section):
    """Cross-origin resource sharing. Without origins it is off, and browsers send nothing from pages of others."""

    allowed_origins: Texts = ()
    """Such as https://shop.example; `*` stands for any characters, once in each. Browsers that send credentials refuse
    the answer to a bare `*`: write `https://*` and `http://*` for any origin."""
    allowed_headers: Texts = ()
    """Of requests, beyond Accept, Accept-Language, Content-Type and Content-Language; `*`: any. Empty:
    X-Requested-With. Pages that send bearer tokens need Authorization here."""
    exposed_headers: Texts = ()
    """Of answers, that pages may read."""
    max_age: Count = 0
    """For how many seconds a browser needs not to ask again. 0: its own default, 5 seconds."""

    @model_validator(mode="after")
    def _has_an_effect(self) -> Self:
        if not self.allowed_origins and (self.allowed_headers or self.exposed_headers or self.max_age):
            raise ValueError("without allowed_origins it allows nothing; name origins, or leave cors out")
        several = next((origin for origin in self.allowed_origins if origin.count("*") > 1), None)
        if several is not None:
            raise ValueError(f"{several!r} has more than one *; name several origins instead")
        return self
