"""By what is a page known to be the report of a job?"""


def mark(job: str) -> str:
    """What stands in a job's report and in no other page: notes on a job name its id too."""
    return f"<code><bdi>{job}</bdi></code>"
