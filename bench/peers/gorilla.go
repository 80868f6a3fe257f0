// gorilla/websocket: an echo, and what comes on the control port (each with its length in four bytes before it) goes to
// all clients as one prepared text message.
//
// usage: gorilla PORT CONTROL_PORT
package main

import (
	"encoding/binary"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"sync"

	"github.com/gorilla/websocket"
)

// client: a connection may have one writer at a time, and an answer can meet a message to all.
type client struct {
	conn  *websocket.Conn
	write sync.Mutex
}

var (
	clients  = map[*client]bool{}
	lock     sync.Mutex
	upgrader = websocket.Upgrader{
		ReadBufferSize:  1024,
		WriteBufferSize: 1024,
		CheckOrigin:     func(*http.Request) bool { return true },
	}
)

func serve(w http.ResponseWriter, r *http.Request) {
	conn, err := upgrader.Upgrade(w, r, nil)
	if err != nil {
		return
	}
	c := &client{conn: conn}
	lock.Lock()
	clients[c] = true
	lock.Unlock()
	defer func() {
		lock.Lock()
		delete(clients, c)
		lock.Unlock()
		conn.Close()
	}()
	for {
		kind, text, err := conn.ReadMessage()
		if err != nil {
			return
		}
		c.write.Lock()
		err = conn.WriteMessage(kind, text)
		c.write.Unlock()
		if err != nil {
			return
		}
	}
}

func fanOut(text []byte) {
	message, err := websocket.NewPreparedMessage(websocket.TextMessage, text)
	if err != nil {
		log.Fatal(err)
	}
	lock.Lock()
	defer lock.Unlock()
	for c := range clients {
		c.write.Lock()
		c.conn.WritePreparedMessage(message)
		c.write.Unlock()
	}
}

func control(conn net.Conn) {
	var length uint32
	for {
		if binary.Read(conn, binary.BigEndian, &length) != nil {
			return
		}
		text := make([]byte, length)
		if _, err := io.ReadFull(conn, text); err != nil {
			return
		}
		fanOut(text)
	}
}

func main() {
	listener, err := net.Listen("tcp", "127.0.0.1:"+os.Args[2])
	if err != nil {
		log.Fatal(err)
	}
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				log.Fatal(err)
			}
			go control(conn)
		}
	}()
	log.Fatal(http.ListenAndServe("127.0.0.1:"+os.Args[1], http.HandlerFunc(serve)))
}
