"""How many connections and files a process may have open."""

import resource

import structlog

log = structlog.get_logger(__name__)


def allow_many() -> int:
    """Raise this process's limit to what the system lets it have, as Go's programs do; gives the limit.

    Many systems begin with 1024, for programs of old that look at all numbers up to it.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == hard:
        return soft
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    except (OSError, ValueError) as error:
        log.warning("the limit of open files can't be raised", limit=soft, wanted=hard, error=str(error))
        return soft
    return hard
