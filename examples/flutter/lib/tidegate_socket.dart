import 'dart:async';

import 'package:web_socket_channel/web_socket_channel.dart';
import 'package:websocket_universal/websocket_universal.dart';

/// The WebSocket below websocket_universal.
///
/// The package's own ones tell neither the close code nor the moment of the end (it looks at the socket only
/// when it pings), and in a browser they offer no subprotocol. One object is one connection.
class TidegateSocket implements IPlatformWebsocket {
  WebSocketChannel? _channel;
  bool _closed = false;
  final _ended = Completer<void>();

  /// Completes when the connection has ended, however that came.
  Future<void> get ended => _ended.future;

  /// What the peer closed with; null before the end, and after a cut.
  int? get closeCode => _channel?.closeCode;

  @override
  String? get closeReason => _channel?.closeReason;

  @override
  Future<bool> connect(
    String url,
    Duration timeout, {
    SocketOptionalParams params = const SocketOptionalParams(),
  }) async {
    final channel = WebSocketChannel.connect(Uri.parse(url), protocols: params.protocols);
    await channel.ready;
    if (_closed) {
      // The package has waited for long enough, and given up.
      channel.sink.close().ignore();
      return false;
    }
    _channel = channel;
    return true;
  }

  @override
  Stream<Object?> get incomingMessagesStream => _channel!.stream.transform(
        StreamTransformer<dynamic, Object?>.fromHandlers(
          handleData: (data, sink) => sink.add(data),
          handleError: (error, trace, sink) {}, // a cut; the end comes next
          handleDone: (sink) {
            _ended.complete();
            sink.close();
          },
        ),
      );

  @override
  void sendMessage(Object data) => _channel?.sink.add(data);

  @override
  Future<void> close(int? code, String? reason) async {
    _closed = true;
    // Not awaited: where the network is gone, nobody answers a close frame.
    _channel?.sink.close(code).ignore();
  }

  @override
  SocketStatus get socketStatus =>
      _channel == null || _ended.isCompleted ? SocketStatus.disconnected : SocketStatus.connected;

  @override
  String get platformStatus => ' (${socketStatus.value}, close code $closeCode)';
}
