import 'dart:async';

import 'event.dart';
import 'subscription.dart';
import 'tidegate.dart';

extension GroupEvents on Tidegate {
  /// What a group's handlers would hear, for `await for`. The next event comes when the loop asks for it, and the last one counts
  /// as dealt with then. Cancelling leaves the group.
  Stream<Event> events(String group) {
    Subscription? subscription;
    Completer<void>? pause;
    late final StreamController<Event> controller;
    Future<void>? deliver(Event event) {
      controller.add(event);
      return controller.isPaused ? (pause ??= Completer<void>()).future : null;
    }

    void goOn() {
      pause?.complete();
      pause = null;
    }

    controller = StreamController<Event>(
      sync: true, // so that isPaused tells what the listener has made of it
      onListen: () => subscription = this.group(group, Handlers(onMessage: deliver, onGap: deliver, onLeft: deliver)),
      onResume: goOn,
      onCancel: () {
        subscription?.leave();
        goOn();
      },
    );
    return controller.stream;
  }
}
