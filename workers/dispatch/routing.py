"""Which deployments could answer a call?"""

import asyncio
from collections.abc import Container, Mapping, Sequence

from schemas.deployments import Deployment, Task, names_by_model
from workers.ports import Endpoint, EndpointInfo
from workers.rows.packing import Limits

INFO_DEADLINE = 20.0


class Routing:
    """Models, the deployments that serve them, and what their endpoints say of themselves.

    `routes` maps a model to names of deployments; a model without a route goes to the deployments
    of that model, and the name of a deployment to itself.
    """

    def __init__(
        self,
        deployments: Sequence[Deployment],
        endpoints: Mapping[str, Endpoint],
        routes: Mapping[str, Sequence[str]],
    ) -> None:
        self._deployments = {each.name: each for each in deployments}
        self._tasks = {each.name: each.serves for each in deployments}
        self._endpoints = endpoints
        self._infos: dict[str, EndpointInfo | None] = {}
        self._able: dict[tuple[Task, str], tuple[str, ...]] = {}
        self._asking: dict[str, asyncio.Lock] = {each.name: asyncio.Lock() for each in deployments}
        self.names: Mapping[str, tuple[str, ...]] = names_by_model(deployments, routes)

    def able(self, task: Task, model: str) -> tuple[str, ...]:
        """The deployments that can do a task, by configuration and by what `preflight` heard."""
        known = self._able.get((task, model))
        if known is None:
            known = tuple(name for name in self.serving(task, model) if self._hears(name, task))
            if known:  # bounded by what is configured, not by what rows name
                self._able[task, model] = known
        return known

    def cannot(self, task: Task, model: str, among: Container[str] | None = None) -> str | None:
        """Why no deployment can do this, as a message for the row; None if one can.

        Where only those `among` names may be asked, the others cannot.
        """
        names = self.names.get(model)
        if names is None:
            known = ", ".join(sorted(self.names)) or "none"
            return f"no deployment serves the model {model!r}; known are: {known}"
        serving = self.serving(task, model)
        if among is not None and serving and not any(name in among for name in serving):
            return f"no deployment of {model!r} has a price, and the job's cost is capped"
        if serving:
            return None
        able = sorted({each for name in names for each in self._tasks[name]})
        return f"the deployments of {model!r} do not do {task}; they do: {', '.join(able)}"

    def pack_limits(self, task: Task, model: str) -> Limits:
        """What a packed call may hold: what each deployment that may get it takes."""
        usual = Limits()
        taken = [
            self._deployments[name].max_inputs_per_request or usual.inputs
            for name in self.serving(task, model)
        ]
        return Limits(inputs=min(taken, default=usual.inputs), size=usual.size)

    async def preflight(self, task: Task, model: str) -> str | None:
        """Why the endpoints themselves say that they cannot do a task; None if one can.

        Each endpoint is asked once; an endpoint that does not say is believed to be able.
        """
        refused = self.cannot(task, model)
        if refused is not None:
            return refused
        async with asyncio.TaskGroup() as group:
            for name in self.serving(task, model):
                group.create_task(self._ask(name))
        return self.heard(task, model)

    def heard(self, task: Task, model: str) -> str | None:
        """Why no endpoint can do a task, as far as `preflight` has asked them; None if one can."""
        if self.able(task, model):
            return None
        names = self.serving(task, model)
        if not names:
            return None
        said = [f"{name} says it does {self._says(name)}" for name in names]
        return f"no deployment of {model!r} can do {task}: {'; '.join(said)}"

    async def _ask(self, name: str) -> None:
        async with self._asking[name]:
            if name in self._infos:
                return
            try:
                async with asyncio.timeout(INFO_DEADLINE):
                    self._infos[name] = await self._endpoints[name].info()
            except TimeoutError:
                self._infos[name] = None
            self._able.clear()

    def serving(self, task: Task, model: str) -> tuple[str, ...]:
        """The deployments that may be asked for a model's task."""
        names = self.names.get(model, ())
        return tuple(name for name in names if task in self._tasks[name])

    def _hears(self, name: str, task: Task) -> bool:
        info = self._infos.get(name)
        return info is None or info.tasks is None or task in info.tasks

    def _says(self, name: str) -> str:
        info = self._infos.get(name)
        return ", ".join(info.tasks or ()) if info else ""
