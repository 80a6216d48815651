package main

import (
	"bufio"
	"bytes"
	"fmt"
	"net"
	"regexp"
	"strconv"
	"time"
)

// What is wanted of a stream stands in the prompt, because every proxy passes that on: "events=1000 pace_us=2000".
var wanted = regexp.MustCompile(`events=(\d+) pace_us=(\d+)`)

const (
	created = `"created":1700000000,"model":"mock"`
	usage   = `"usage":{"prompt_tokens":60,"completion_tokens":40,"total_tokens":100}`
	answer  = `{"id":"chatcmpl-bench","object":"chat.completion",` + created + `,"choices":[{"index":0,"message":` +
		`{"role":"assistant","content":"The invoice lists three items. The first is a pair of shoes, the second a coat, ` +
		`and the third a scarf; together they cost two hundred and ten euros, tax included."},"logprobs":null,` +
		`"finish_reason":"stop"}],` + usage + `}`
	before = `data: {"id":"chatcmpl-bench","object":"chat.completion.chunk",` + created + `,"choices":[{"index":0,"delta":`
	after  = "}]}\n\n"
	models = `{"object":"list","data":[{"id":"mock","object":"model","created":1700000000,"owned_by":"bench"}]}`
)

var streamHead = []byte("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")

func whole(document string) []byte {
	const form = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s"
	return []byte(fmt.Sprintf(form, len(document), document))
}

var wholeAnswer, wholeModels, nothing = whole(answer), whole(models), whole("{}")

// serve answers chat completions, whole or streamed, the list of models, and anything else (traces) with nothing.
func serve(address string) error {
	listener, err := net.Listen("tcp", address)
	if err != nil {
		return err
	}
	for {
		connection, err := listener.Accept()
		if err != nil {
			return err
		}
		go converse(connection)
	}
}

func converse(connection net.Conn) {
	defer connection.Close()
	in := bufio.NewReaderSize(connection, 32<<10)
	var asked head
	for {
		if readHead(in, &asked) != nil {
			return
		}
		if asked.length < 0 {
			asked.length = 0 // a request without a body
		}
		pieces, content := body{in: in, head: &asked}, []byte(nil)
		for {
			piece, err := pieces.next()
			if err != nil {
				return
			}
			if piece == nil || len(piece) == 0 {
				break
			}
			content = append(content, piece...)
		}
		if reply(connection, asked.first, content) != nil {
			return
		}
	}
}

func reply(connection net.Conn, first, content []byte) error {
	reply := nothing
	switch {
	case bytes.Contains(first, []byte("/chat/completions")):
		if bytes.Contains(content, []byte(`"stream":true`)) || bytes.Contains(content, []byte(`"stream": true`)) {
			return stream(connection, content)
		}
		reply = wholeAnswer
	case bytes.Contains(first, []byte("/models")):
		reply = wholeModels
	}
	_, err := connection.Write(reply)
	return err
}

// stream sends numbered events that say when they were sent. A pace holds between one event and the next, so that a
// late one is never made good with two at once; without a pace, events go out in blocks that end anywhere.
func stream(connection net.Conn, content []byte) error {
	events, pace := 10, time.Duration(0)
	if match := wanted.FindSubmatch(content); match != nil {
		events, _ = strconv.Atoi(string(match[1]))
		micros, _ := strconv.Atoi(string(match[2]))
		pace = time.Duration(micros) * time.Microsecond
	}
	out := bufio.NewWriterSize(connection, 8<<10)
	out.Write(streamHead)
	event := make([]byte, 0, 512)
	for number := 0; number < events; number++ {
		if pace > 0 {
			if err := out.Flush(); err != nil {
				return err
			}
			time.Sleep(pace)
		}
		event = append(event[:0], before...)
		event = fmt.Appendf(event, `{"content":"w%07d %d "},"finish_reason":null`, number, time.Now().UnixNano())
		chunk(out, append(event, after...))
	}
	chunk(out, []byte(before+`{},"finish_reason":"stop"`+after))
	if bytes.Contains(content, []byte(`"include_usage"`)) {
		chunk(out, []byte(`data: {"id":"chatcmpl-bench","object":"chat.completion.chunk",`+created+`,"choices":[],`+usage+"}\n\n"))
	}
	chunk(out, []byte("data: [DONE]\n\n"))
	out.WriteString("0\r\n\r\n")
	return out.Flush()
}

func chunk(out *bufio.Writer, event []byte) {
	var length [8]byte
	out.Write(strconv.AppendInt(length[:0], int64(len(event)), 16))
	out.WriteString("\r\n")
	out.Write(event)
	out.WriteString("\r\n")
}
