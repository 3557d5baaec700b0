"""Loads contact groups into a campaign, waits for the load, sends the campaign.

Usage: python campaign.py CAMPAIGN GROUPS
Needs requests, and the API key in the file mobizon_key.
"""

import os
import sys
import time
from pathlib import Path
from typing import Any

import requests

API = os.environ.get("MOBIZON_API", "https://api.mobizon.kz")
EXPORTER = os.environ.get("EXPORTER", "http://localhost:10117")
PAUSE, TRIES = float(os.environ.get("PAUSE", "10")), int(os.environ.get("TRIES", "30"))


class CampaignError(Exception):
    """Why the campaign is not sent."""


def mobizon(method: str, **form: str) -> Any:
    """Call a method of Mobizon's API and return the decoded answer."""
    query = {"output": "json", "api": "v1", "apiKey": Path("mobizon_key").read_text().strip()}
    try:
        url = f"{API}/service/{method}"
        answer = requests.post(url, params=query, data=form, timeout=60, allow_redirects=False)
        return answer.json()
    except requests.RequestException as error:  # its text contains the URL, and so the key
        raise CampaignError(f"Mobizon does not answer {method}: {type(error).__name__}") from None


def exporter(method: str, path: str, body: dict[str, str] | None = None) -> requests.Response:
    """Send a request to the exporter, with retries while it is unavailable."""
    problem = ""
    for _ in range(TRIES):
        pause = PAUSE
        try:
            answer = requests.request(method, EXPORTER + path, json=body, timeout=60)
            if answer.status_code not in {429, 500, 502, 503, 507}:
                return answer
            problem, retry_after = answer.text, answer.headers.get("Retry-After", "")
            pause = float(retry_after) if retry_after.isdigit() else PAUSE
        except requests.RequestException as error:
            problem = str(error)
        time.sleep(pause)
    raise CampaignError(f"the exporter does not answer: {problem}")


def wait_for_task(task_id: int, patience: float = 4 * 3600) -> None:
    """Return once the task is completed."""
    deadline = time.monotonic() + patience
    while (answer := exporter("GET", f"/api/v1/tasks/{task_id}/wait")).status_code == 504:
        if time.monotonic() > deadline:
            break
    if answer.status_code == 409:
        exporter("DELETE", f"/api/v1/tasks/{task_id}")
        raise CampaignError(f"task {task_id} is rejected")
    if answer.status_code != 200:
        raise CampaignError(f"task {task_id} (status {answer.status_code}): {answer.text}")


def main(campaign: str, groups: str) -> None:
    """Load, wait, send."""
    answer = mobizon("campaign/addRecipients", id=campaign, recipientGroups=groups)
    if answer["code"] != 100:
        raise CampaignError(f"no load was started: {answer}")
    task_id = int(answer["data"])
    registered = exporter("PUT", f"/api/v1/tasks/{task_id}", {"name": f"campaign-{campaign}"})
    if not registered.ok:
        raise CampaignError(f"task {task_id} is not registered: {registered.text}")
    wait_for_task(task_id)
    answer = mobizon("campaign/send", id=campaign)
    if answer["code"] != 0:
        raise CampaignError(f"{answer}")


if __name__ == "__main__":
    try:
        main(*sys.argv[1:])
    except CampaignError as error:
        sys.exit(f"campaign {sys.argv[1]} is not sent: {error}")
    print(f"campaign {sys.argv[1]} is sent")
