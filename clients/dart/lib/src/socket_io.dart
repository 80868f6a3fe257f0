// On devices and servers: dart:io, which tells the status of a refused handshake.

import 'dart:async';
import 'dart:io';

import 'socket.dart' as contract;

/// Throws [contract.Refused], or whatever kept it from connecting.
Future<contract.Socket> openSocket(Uri uri, List<String> protocols) async {
  try {
    final socket = await WebSocket.connect(
      uri.toString(),
      protocols: protocols,
      compression: CompressionOptions.compressionOff, // the gateway has none
    );
    return _IoSocket(socket);
  } on WebSocketException catch (error) {
    final status = error.httpStatusCode;
    if (status == null) rethrow;
    throw contract.Refused(status);
  }
}

class _IoSocket implements contract.Socket {
  _IoSocket(this._socket);

  final WebSocket _socket;

  @override
  Stream<Object?> get messages => _socket.handleError((Object _) {}); // a cut; the end comes next

  @override
  int? get closeCode => _socket.closeCode;

  @override
  String? get closeReason => _socket.closeReason;

  @override
  void send(String text) => _socket.add(text);

  @override
  void close() => _socket.close(WebSocketStatus.normalClosure).ignore();
}
