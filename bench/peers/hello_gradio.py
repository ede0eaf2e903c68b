"""The smallest Gradio app there is: what any page on Gradio costs at least. Argument: the port."""

import sys

import gradio

if __name__ == "__main__":
    with gradio.Blocks() as page:
        name = gradio.Textbox(label="Name")
        greeting = gradio.Textbox(label="Greeting")
        name.submit(lambda text: f"Hello {text}", name, greeting)
    page.launch(server_name="127.0.0.1", server_port=int(sys.argv[1]), quiet=True)
