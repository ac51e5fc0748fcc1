import signal
import threading

from visionr1.training.interrupt import stop_signals


def test_a_run_in_another_thread_leaves_signals_alone() -> None:
    before, seen = signal.getsignal(signal.SIGINT), []

    def elsewhere() -> None:
        with stop_signals() as stopped:
            seen.append((list(stopped), signal.getsignal(signal.SIGINT)))

    thread = threading.Thread(target=elsewhere)
    thread.start()
    thread.join()
    assert seen == [([], before)]
