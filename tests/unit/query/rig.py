"""A router of applications in memory, whose time a test counts from `NOW_S`."""

from builders.query_router import NOW_S, application, make_router, outputs_of


def double(value):
    return 2 * value


def answer_of(effects):
    (answer,) = effects.answers
    return answer


class Rig:
    """A router of these applications; times are seconds after `NOW_S`."""

    def __init__(self, *applications, **settings):
        self.router = make_router(*(applications or [application()]), **settings)

    def receive(self, *queries, at_s=0.0):
        return self.router.receive(queries, NOW_S + at_s)

    def ask(self, *queries, at_s=0.0):
        """The requests to models, by reference."""
        return {request.ref: request for request in self.receive(*queries, at_s=at_s).requests}

    def gather(self, request, model=double, at_s=0.0, **how):
        return self.router.gather([outputs_of(request, model, **how)], NOW_S + at_s)

    def expire(self, at_s):
        return self.router.expire(NOW_S + at_s)
