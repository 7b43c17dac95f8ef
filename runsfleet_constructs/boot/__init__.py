"""The first script of an instance, put together by ``runsfleet_constructs.user_data``.

``user_data.sh`` is what cloud-init runs, ``fetch_agent.py`` is the part of it that downloads the
agent. Both run on the instance and nowhere else, with nothing installed but Python.

``user_data.ps1`` is the same for Windows, where EC2Launch runs it, and installs Python too;
``watchdog.ps1`` is the task that it registers before anything else.
"""
