"""A host for `function_app.py` on a laptop: what the Azure Functions host does around a Python v2 app, without Docker.

Microsoft's `func` downloads its host at first run and exists for few platforms; this one needs Python alone. The app
is loaded and its triggers are decoded by the azure-functions package itself, events come through the real
azure-eventhub consumer with checkpoints in Blob Storage, and the settings come from host.json and the environment.

    host_json.py  the settings of host.json that matter here
    functions.py  the app's functions, one call of one function
    retries.py    retry policies
    ncrontab.py   timer schedules
    routes.py     route templates
    http.py       HTTP triggers as an ASGI application
    eventhub.py   Event Hubs triggers
    timers.py     timer triggers
    host.py       all of it together
    __main__.py   as a process on loopback

Not here, because the app does not use it: output bindings, function keys (nothing but loopback can reach this host),
other triggers. An app that needs them is refused when it is loaded, not when it is called.
"""
