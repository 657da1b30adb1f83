"""The dialect `relay.v1`: over WebSocket, and over SSE for clients that use plain HTTP."""
