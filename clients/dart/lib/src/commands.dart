import 'dart:async';
import 'dart:convert';

import 'command.dart';
import 'connection.dart';

/// Commands of the application that have no outcome yet, and are not on a connection.
class Commands {
  Commands(this._patience);

  final Duration _patience;
  final _waiting = <Command>[];

  /// Bytes of a whole command, and of its `data`; `welcome` may say others.
  int messageBytes = 131072;
  int dataBytes = 65536;

  /// Goes to [connection], or waits for one. Throws [CommandError]; nothing is sent where it is too large.
  Future<Json> add(Json body, {required Connection? connection, Object? data, bool repeatable = false}) {
    final outcome = Completer<Json>();
    final command = Command(
      body,
      repeatable: repeatable,
      onReply: outcome.complete,
      onError: outcome.completeError,
    );
    if (_bytes(jsonEncode(data)) > dataBytes || _bytes(command.text(1 << 32)) > messageBytes) {
      command.fail(const CommandError('too_large', 'it was not sent'));
      return outcome.future;
    }
    command.deadline = Timer(_patience, () => command.fail(const CommandError('timeout')));
    _waiting.add(command);
    if (connection != null) sendTo(connection);
    return outcome.future;
  }

  void sendTo(Connection connection) {
    final waiting = [..._waiting];
    _waiting.clear();
    waiting.where((command) => !command.isOver).forEach(connection.send);
  }

  /// What was sent on [connection] and not answered waits again where that is safe.
  void takeBack(Connection connection) {
    final unanswered = [...connection.pending.values];
    connection.pending.clear();
    _waiting.insertAll(0, unanswered.where((command) => command.repeatable));
    for (final command in unanswered.where((command) => !command.repeatable)) {
      command.fail(const CommandError('unknown_outcome', 'the connection ended before the answer'));
    }
  }

  /// The client is closed: nothing waits any more.
  void close() {
    final waiting = [..._waiting];
    _waiting.clear();
    for (final command in waiting) {
      command.fail(const CommandError('closed'));
    }
  }

  static int _bytes(String text) => utf8.encode(text).length;
}
