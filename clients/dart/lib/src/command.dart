import 'dart:async';
import 'dart:convert';
import 'dart:math';

/// How a command failed: a code of docs/protocol.md, or `unknown_outcome` (sent, and cut before the answer), `timeout`,
/// `closed`.
class CommandError implements Exception {
  const CommandError(this.code, [this.message = '']);

  final String code;

  /// For people.
  final String message;

  @override
  String toString() => message.isEmpty ? code : '$code: $message';
}

typedef Json = Map<String, Object?>;

/// One command, from the call to its outcome. It is encoded once, so that a repetition has the same bytes.
class Command {
  /// [repeatable]: sent again where a cut came before the answer.
  Command(Json body, {required this.repeatable, required this.onReply, required this.onError})
      : _text = jsonEncode(body);

  final bool repeatable;
  final void Function(Json reply) onReply;
  final void Function(CommandError error) onError;
  final String _text;
  Timer? deadline;
  bool _over = false;

  /// What is sent; the gateway takes the keys in any order.
  String text(int id) => '{"id":$id,${_text.substring(1)}';

  void succeed(Json reply) => _end(() => onReply(reply));

  void fail(CommandError error) => _end(() => onError(error));

  void _end(void Function() tell) {
    if (_over) return;
    _over = true;
    deadline?.cancel();
    tell();
  }

  bool get isOver => _over;
}

/// A key that nobody has used: 128 bits by chance.
String newKey() {
  final random = Random.secure();
  return [for (var i = 0; i < 16; i++) random.nextInt(256).toRadixString(16).padLeft(2, '0')].join();
}
