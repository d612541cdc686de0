"""A new agent takes the place of the one that runs, and no client, proxy or peer notices.

The two speak over a Unix socket in `state_dir`. The new one gathers evidence of its own beside the old one;
then the old one stands still and hands over its listening sockets, the clients that it has not answered
yet, and all that it knows. One word decides, `Go`: until it is said the old one goes on when anything fails,
and from then on it never answers again. So at no moment do two of them answer, and none ever answers from
a memory that is older than the other's last answer.

    new  Hello      ->             who am I
         <-  Welcome               your incarnation and listening sockets; I go on answering
         Ready  ->                 what I see; again and again
         <-  NotYet, Rehearsal     what you must still see; a copy of what I know, can you read it?
         Take  ->                  I can; some time for clients to leave connections that cannot be moved
         <-  Clients, Knowledge    (the old one stands still from here)
         Have  ->                  I could go on with this
         <-  Go                    the commit
         Serving  ->               I answer
         <-  Bye                   the service manager knows you

`No`, with a reason, ends it in either direction. An end of file without it is a death, and is believed only
when the kernel says so too (a pidfd).
"""

from healthagent.takeover.channel import Gone, Refused, TakeoverFailed
from healthagent.takeover.giver import DETACH, Giver, Replaceable
from healthagent.takeover.knowledge import Holders
from healthagent.takeover.place import PlaceError, bind
from healthagent.takeover.succession import Succession
from healthagent.takeover.taker import Predecessor, reach

__all__ = [
    "DETACH",
    "Giver",
    "Gone",
    "Holders",
    "PlaceError",
    "Predecessor",
    "Refused",
    "Replaceable",
    "Succession",
    "TakeoverFailed",
    "bind",
    "reach",
]
