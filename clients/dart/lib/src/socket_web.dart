// In browsers, by way of web_socket_channel: a refused handshake is a cut like any other there.

import 'dart:async';

import 'package:web_socket_channel/web_socket_channel.dart';

import 'socket.dart';

/// Throws whatever kept it from connecting.
Future<Socket> openSocket(Uri uri, List<String> protocols) async {
  final channel = WebSocketChannel.connect(uri, protocols: protocols);
  await channel.ready;
  return _WebSocket(channel);
}

class _WebSocket implements Socket {
  _WebSocket(this._channel);

  final WebSocketChannel _channel;

  @override
  Stream<Object?> get messages => _channel.stream.handleError((Object _) {}); // a cut; the end comes next

  @override
  int? get closeCode => _channel.closeCode;

  @override
  String? get closeReason => _channel.closeReason;

  @override
  void send(String text) => _channel.sink.add(text);

  @override
  void close() => _channel.sink.close(1000).ignore();
}
